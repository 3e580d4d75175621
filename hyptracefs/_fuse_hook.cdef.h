/* What hyptracefs/fuse_hook.py sees of the hook. */
struct fuse_hook_request {
	uint64_t id;
	int32_t caller;
	int flags;
	bool interrupted;
	uint64_t cache;
};

#define FUSE_HOOK_STREAM ...
#define FUSE_HOOK_PIPE ...

extern struct fuse_hook_request fuse_hook_request;
bool fuse_hook_was_hit(void);
bool fuse_hook_sets_streams(void);
int fuse_hook_session_fd(void);

bool fuse_hook_has_pump(void);
void fuse_hook_add(uintptr_t source);
int fuse_hook_start(void);
void fuse_hook_stop(void);
void fuse_hook_enter(void);
void fuse_hook_leave(void);

extern "Python" void fuse_hook_interrupted(uint64_t id);
