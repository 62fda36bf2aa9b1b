// SPDX-License-Identifier: GPL-2.0
/*
 * Where the implementations of the protocol differ on purpose: what
 * intended-differences.txt says of the one under test.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kselftest.h"
#include "cachefiles_test.h"

#define INTENDED_FILE	"intended-differences.txt"

bool cf_is_c(void)
{
	const char *implementation = getenv("CACHEFILES_IMPLEMENTATION");

	return implementation && !strcmp(implementation, "c");
}

static const struct {
	const char *name;
	long value;
} names[] = {
	{ "no", 0 }, { "yes", 1 },
	/* What cf_wait() and the like return when nothing comes of it. */
	{ "hang", -ETIMEDOUT },
	/* Nothing is left to return anything. */
	{ "crash", CF_CRASH },
};

static bool parse_value(const char *text, long *value)
{
	const char *digits = text + (*text == '-');
	char *end;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strcmp(text, names[i].name)) {
			*value = names[i].value;
			return true;
		}
	}
	*value = strtol(text, &end, 0);
	if (end != text && !*end)
		return true;
	for (i = 1; i < 134; i++) {
		const char *name = strerrorname_np(i);

		if (name && !strcmp(digits, name)) {
			*value = *text == '-' ? -(long)i : (long)i;
			return true;
		}
	}
	return false;
}

/* The next field of a line: what is before a '|', without the spaces around it. */
static char *field(char **rest)
{
	char *start = strsep(rest, "|"), *end;

	if (!start)
		return "";
	start += strspn(start, " \t");
	end = start + strlen(start);
	while (end > start && strchr(" \t\n", end[-1]))
		*--end = 0;
	return start;
}

long cf_intended(const char *id)
{
	char path[PATH_MAX];
	FILE *f = fopen(cf_beside(INTENDED_FILE, path), "r");
	char line[1024];
	long value;

	if (!f)
		ksft_exit_fail_msg("%s has to be beside the program\n", INTENDED_FILE);
	while (fgets(line, sizeof(line), f)) {
		char *rest = line, *c, *here;

		if (strcmp(field(&rest), id))
			continue;
		c = field(&rest);
		here = field(&rest);
		fclose(f);
		if (!parse_value(cf_is_c() ? c : here, &value))
			ksft_exit_fail_msg("%s: '%s' has no value\n", INTENDED_FILE, id);
		/* For who compares the implementations. */
		dprintf(STDOUT_FILENO, "# intended difference: %s\n", id);
		return value;
	}
	ksft_exit_fail_msg("%s has no line '%s'\n", INTENDED_FILE, id);
}
