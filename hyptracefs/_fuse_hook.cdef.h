/* What hyptracefs/fuse_hook.py sees of the hook. */
struct fuse_hook_read {
	uint64_t id;
	int flags;
	bool interrupted;
};

extern struct fuse_hook_read fuse_hook_read;
extern int fuse_hook_writer;
bool fuse_hook_was_hit(void);
int fuse_hook_session_fd(void);

extern "Python" void fuse_hook_interrupted(uint64_t id);
