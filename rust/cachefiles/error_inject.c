// SPDX-License-Identifier: GPL-2.0
/*
 * /proc/sys/cachefiles/error_injection, as of the code in C: bit 0 has writes
 * fail with ENOSPC, bit 1 has everything fail with EIO.
 */

#include <linux/cachefiles_rust.h>
#include <linux/errno.h>
#include <linux/sysctl.h>

unsigned int cachefiles_error_injection_state;

static struct ctl_table_header *cachefiles_sysctl;
static const struct ctl_table cachefiles_sysctls[] = {
	{
		.procname	= "error_injection",
		.data		= &cachefiles_error_injection_state,
		.maxlen		= sizeof(unsigned int),
		.mode		= 0644,
		.proc_handler	= proc_douintvec,
	},
};

int cachefiles_register_error_injection(void)
{
	cachefiles_sysctl = register_sysctl("cachefiles", cachefiles_sysctls);
	return cachefiles_sysctl ? 0 : -ENOMEM;
}

void cachefiles_unregister_error_injection(void)
{
	unregister_sysctl_table(cachefiles_sysctl);
}
