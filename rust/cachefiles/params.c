// SPDX-License-Identifier: GPL-2.0
/*
 * The parameters of the module: those that module! declares cannot be changed
 * once the module is loaded.
 */

#include <linux/cachefiles_rust.h>
#include <linux/moduleparam.h>

unsigned int cachefiles_debug;
module_param_named(debug, cachefiles_debug, uint, 0644);
MODULE_PARM_DESC(debug, "CacheFiles debugging mask");
