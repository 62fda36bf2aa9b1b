# SPDX-License-Identifier: GPL-2.0
# The table of scripts/compare.  Reads the list of intended differences and then the results of the
# runs, which have in each line a program, a test, what came of it, the intended differences that it
# asked for, and a reason if need be.

function trim(text) {
	gsub(/^[ \t]+|[ \t]+$/, "", text)
	return text
}

function problem(text) {
	problems[++nproblems] = text
}

# The runs in the order of the table.
BEGIN {
	split("c rust-7.2 rust-7.3", runs, " ")
	title["c"] = "C 7.2"
	title["rust-7.2"] = "Rust 7.2"
	title["rust-7.3"] = "Rust 7.3"
}

FILENAME ~ /intended-differences\.txt$/ {
	n = split($0, f, "|")
	if (/^#/ || n < 2)
		next
	id = trim(f[1])
	if (n != 5 || trim(f[5]) == "")
		problem("intended difference " id ": the line must have five fields")
	if (id in what)
		problem("intended difference " id ": listed twice")
	listed[++nlisted] = id
	value[id, "c"] = trim(f[2])
	value[id, "rust-7.2"] = value[id, "rust-7.3"] = trim(f[3])
	what[id] = trim(f[4])
	why[id] = trim(f[5])
	if (value[id, "c"] == value[id, "rust-7.3"])
		problem("intended difference " id ": the values are the same, so it is none")
	next
}

{
	run = FILENAME
	sub(/.*\//, "", run)
	sub(/\.results$/, "", run)
	if ($1 == "kernel-log") {
		if ($3 != "ok")
			problem("the machine of " title[run] ": " $5)
		next
	}
	key = $1 "\t" $2
	if (!(key in known)) {
		known[key] = 1
		if (!($1 in tests_of))
			programs[++nprograms] = $1
		tests_of[$1]++
		test[$1, tests_of[$1]] = $2
		if (length($2) + 2 > width)
			width = length($2) + 2
	}
	verdict[key, run] = $3
	asked[key, run] = $4
	reason[key, run] = $5
}

# What a run did in a test, in a word.
function shown(key, run,    n, i, ids, text) {
	if (!((key, run) in verdict))
		return "-"
	if (verdict[key, run] == "skip")
		return "skipped"
	if (verdict[key, run] !~ /^(ok|crash)$/)
		return "FAILED"
	n = split(asked[key, run], ids, " ")
	for (i = 1; i <= n; i++)
		text = text (i > 1 ? ", " : "") value[ids[i], run]
	return n ? text : "ok"
}

# What is wrong with a run of a test, or nothing.
function fault(key, run,    n, i, ids, crash) {
	if (!((key, run) in verdict))
		return title[run] ": not run"
	if (verdict[key, run] == "skip")
		return ""
	n = split(asked[key, run], ids, " ")
	for (i = 1; i <= n; i++)
		crash = crash || value[ids[i], run] == "crash"
	if (verdict[key, run] == "crash" ? !crash : verdict[key, run] != "ok")
		return title[run] ": " reason[key, run]
	return ""
}

function row(name, c, r72, r73, remark) {
	printf "%-" width "s  %-11s %-11s %-11s %s\n", name, c, r72, r73, remark
}

# The remark on a test; counts it.
function judge(key,    i, j, n, ids, text, skipped, faults, seen) {
	for (i = 1; i <= 3; i++) {
		text = fault(key, runs[i])
		if (text != "")
			faults = faults (faults ? "; " : "") text
		if (verdict[key, runs[i]] == "skip")
			skipped = skipped (skipped ? "; " : "") title[runs[i]] ": " reason[key, runs[i]]
	}
	if (faults != "") {
		nunlisted++
		return "UNLISTED: " faults
	}
	text = ""
	for (i = 1; i <= 3; i++) {
		if (verdict[key, runs[i]] == "skip")
			continue
		n = split(asked[key, runs[i]], ids, " ")
		for (j = 1; j <= n; j++) {
			shows[ids[j], runs[i]] = 1
			if (!(ids[j] in seen))
				text = text (text ? "; " : "") what[ids[j]] " (" why[ids[j]] ")"
			seen[ids[j]] = 1
		}
	}
	if (text != "") {
		nintended++
		return "intended: " text (skipped != "" ? "; skipped on " skipped : "")
	}
	if (skipped != "") {
		nskipped++
		return "skipped on " skipped
	}
	nsame++
	return "same"
}

END {
	row("behaviour", title["c"], title["rust-7.2"], title["rust-7.3"], "")
	for (p = 1; p <= nprograms; p++) {
		print ""
		print programs[p]
		for (t = 1; t <= tests_of[programs[p]]; t++) {
			key = programs[p] "\t" test[programs[p], t]
			remark = judge(key)
			row("  " test[programs[p], t], shown(key, "c"), shown(key, "rust-7.2"),
			    shown(key, "rust-7.3"), remark)
			total++
		}
	}
	for (i = 1; complete && i <= nlisted; i++) {
		# The tests of classic mode are not among those that run by default yet.
		if (listed[i] ~ /^classic-/ && !("classic_test" in tests_of))
			continue
		# Not every kernel has all that it takes to show it.
		if (!((listed[i], "c") in shows))
			problem("intended difference " listed[i] ": no test shows it on C")
		if (!((listed[i], "rust-7.2") in shows) && !((listed[i], "rust-7.3") in shows))
			problem("intended difference " listed[i] ": no test shows it on Rust")
	}
	print ""
	for (i = 1; i <= nproblems; i++)
		print problems[i]
	if (!total)
		print "no test was run"
	printf "%d behaviours: %d same, %d intended differences, %s%d unlisted\n", total, nsame,
		nintended, nskipped ? nskipped " skipped, " : "", nunlisted + nproblems
	exit nunlisted || nproblems || !total
}
