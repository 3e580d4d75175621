// SPDX-License-Identifier: Apache-2.0
/*
 * bench_constant MOUNTPOINT: a file system of one file, `data`, of which every read gets the
 * same bytes at once, as many as it wants. What FUSE costs, and no more. Ends with the mount.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse_lowlevel.h>
#include <string.h>

#define MOST (1 << 20)

static char data[MOST];

static struct stat attributes(fuse_ino_t ino)
{
	return (struct stat){
		.st_ino = ino,
		.st_mode = ino == FUSE_ROOT_ID ? S_IFDIR | 0700 : S_IFREG | 0400,
		.st_nlink = 1,
	};
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	struct stat attr = attributes(ino);

	(void)info;
	fuse_reply_attr(req, &attr, 60);
}

static void do_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry = { .ino = 2, .attr = attributes(2), .attr_timeout = 60,
					  .entry_timeout = 60 };

	(void)parent;
	if (strcmp(name, "data"))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_entry(req, &entry);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *info)
{
	(void)ino;
	info->direct_io = 1;
	fuse_reply_open(req, info);
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset,
		    struct fuse_file_info *info)
{
	(void)ino;
	(void)offset;
	(void)info;
	fuse_reply_buf(req, data, size < MOST ? size : MOST);
}

static const struct fuse_lowlevel_ops ops = {
	.lookup = do_lookup,
	.getattr = do_getattr,
	.open = do_open,
	.read = do_read,
};

int main(int argc, char **argv)
{
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);
	struct fuse_session *session;
	int failed;

	if (argc != 2)
		return 2;
	memset(data, 1, sizeof(data));
	session = fuse_session_new(&args, &ops, sizeof(ops), NULL);
	if (!session || fuse_session_mount(session, argv[1]))
		return 1;
	failed = fuse_session_loop(session) < 0;
	fuse_session_unmount(session);
	fuse_session_destroy(session);
	return failed;
}
