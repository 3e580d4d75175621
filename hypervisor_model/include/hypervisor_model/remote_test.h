/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The remote `test` (SPEC F.3): no hypervisor, nothing but buffers that the host itself
 * writes to, one event at a time. Tools and scripts try themselves out on it.
 */
#ifndef HYPERVISOR_MODEL_REMOTE_TEST_H
#define HYPERVISOR_MODEL_REMOTE_TEST_H

#include "hypervisor_model/hyp.h"
#include "ringbuf_c/define_events.h"

/**
 * remote_test_create - the remote for @nr_cpus CPUs; destroy it with hyp_destroy().
 *
 * Its conduit answers as a hypervisor's does. HVC_TRACING_WRITE_EVENT says -ENODEV when
 * there is no event to write: it is off, tracing is off, or nothing is loaded.
 * Return: 0 and *@remote; -EINVAL without CPUs, -ENOMEM.
 */
int remote_test_create(u32 nr_cpus, struct hyp **remote);

/** remote_test_event_desc - as hyp_event_desc(), for the events of this remote. */
const struct hyp_event_desc *remote_test_event_desc(u32 index);

#endif
