/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open pipe as the hook into libfuse sees it: something to read from, without Python. The
 * border between _ringbuf, which fills it in, and _fuse_hook, which knows no buffers.
 */
#ifndef HYPTRACEFS_PIPE_H
#define HYPTRACEFS_PIPE_H

#include <stdint.h>

struct pipe_end {
	/*
	 * Consume up to @size bytes. Returns how many there are at *@data, valid until the next
	 * call for any pipe; 0: none now, or somebody has to look why. In the event loop's
	 * thread, without the GIL.
	 */
	uint32_t (*take)(struct pipe_end *pipe, const uint8_t **data, uint32_t size);
};

#endif
