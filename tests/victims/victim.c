/* Starting a victim: options, the background, signals.  The report is in report.c. */
#define _GNU_SOURCE
#include "victim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct victim_common victim_common;

static volatile sig_atomic_t asked, stopping;
static sigset_t wait_mask;
static int starter = -1; /* the pipe on which the starter waits */

static const struct victim_option common_options[] = {
	{ "report", VICTIM_PATH, &victim_common.report, "where SIGUSR1 writes the report (required)" },
	{ "foreground", VICTIM_FLAG, &victim_common.foreground, "do not fork, keep the stdio" },
	{ "log", VICTIM_PATH, &victim_common.log, "stdout and stderr instead of /dev/null" },
	{ "pidns", VICTIM_FLAG, &victim_common.pidns, "be PID 1 of a new PID namespace" },
	{ 0 },
};

void victim_die(const char *format, ...)
{
	int err = errno;
	va_list ap;

	fprintf(stderr, "%s: ", victim_common.name);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

static void print_options(const struct victim_option *o)
{
	static const char *const what[] = { " TEXT", " PATH", " N", "" };

	for (; o->name; o++)
		fprintf(stderr, "  --%s%s: %s\n", o->name, what[o->type], o->help);
}

static const struct victim_option *own_options;

void victim_usage(const char *format, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", victim_common.name);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	print_options(own_options);
	print_options(common_options);
	exit(2);
}

/* The background changes to /, so that no directory is held: paths must not be relative. */
static const char *absolute(const char *path)
{
	char *cwd, *full;

	if (*path == '/')
		return path;
	cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&full, "%s/%s", cwd, path) < 0)
		victim_die("working directory");
	free(cwd);
	return full;
}

static const struct victim_option *find(const struct victim_option *o, const char *name, size_t len)
{
	for (; o->name; o++)
		if (strlen(o->name) == len && !memcmp(o->name, name, len))
			return o;
	return NULL;
}

static void set_option(const struct victim_option *o, const char *value)
{
	char *end;

	switch (o->type) {
	case VICTIM_STR:
		*(const char **)o->to = value;
		break;
	case VICTIM_PATH:
		*(const char **)o->to = absolute(value);
		break;
	case VICTIM_U64:
		*(uint64_t *)o->to = strtoull(value, &end, 0);
		if (*end || end == value)
			victim_usage("--%s: not a number: %s", o->name, value);
		break;
	case VICTIM_FLAG:
		*(bool *)o->to = true;
	}
}

static void parse(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = NULL;
		const struct victim_option *o;
		size_t len;

		if (strncmp(arg, "--", 2))
			victim_usage("not an option: %s", arg);
		arg += 2;
		len = strcspn(arg, "=");
		o = find(own_options, arg, len);
		if (!o)
			o = find(common_options, arg, len);
		if (!o)
			victim_usage("no such option: --%s", arg);
		if (arg[len])
			value = arg + len + 1;
		else if (o->type != VICTIM_FLAG)
			value = argv[++i];
		if (o->type != VICTIM_FLAG && !value)
			victim_usage("--%s wants a value", o->name);
		set_option(o, value);
	}
	if (!victim_common.report)
		victim_usage("--report is missing");
}

/* Waits in the starter until the victim is ready, says its PID, and exits. */
static _Noreturn void start_and_leave(pid_t pid, int ready)
{
	char c;

	if (read(ready, &c, 1) != 1) {
		fprintf(stderr, "%s: ended before it was ready\n", victim_common.name);
		_exit(1);
	}
	/* It has that pipe no more when it is looked at. */
	while (read(ready, &c, 1) == 1)
		;
	printf("%d\n", pid);
	fflush(stdout);
	_exit(0);
}

static void go_to_background(void)
{
	int sync[2];
	pid_t pid;

	/* What was inherited may lie outside of the mount namespace, which cannot be dumped. */
	if (close_range(3, ~0U, 0))
		victim_die("close_range");
	if (pipe2(sync, O_CLOEXEC))
		victim_die("pipe");
	if (victim_common.pidns && unshare(CLONE_NEWPID))
		victim_die("unshare a PID namespace");
	pid = fork();
	if (pid < 0)
		victim_die("fork");
	if (pid) {
		close(sync[1]);
		start_and_leave(pid, sync[0]);
	}
	close(sync[0]);
	starter = sync[1];
	if (setsid() < 0)
		victim_die("setsid");
	if (chdir("/"))
		victim_die("chdir /");
}

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		asked = 1;
	else
		stopping = 1;
}

static void set_signals(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t ours;

	sigemptyset(&ours);
	sigaddset(&ours, SIGUSR1);
	sigaddset(&ours, SIGTERM);
	if (sigprocmask(SIG_BLOCK, &ours, &wait_mask))
		victim_die("sigprocmask");
	sigdelset(&wait_mask, SIGUSR1);
	sigdelset(&wait_mask, SIGTERM);
	if (sigaction(SIGUSR1, &sa, NULL) || sigaction(SIGTERM, &sa, NULL))
		victim_die("sigaction");
	signal(SIGPIPE, SIG_IGN);
}

void victim_begin(const char *name, int argc, char **argv, const struct victim_option *options)
{
	victim_common.name = name;
	own_options = options;
	parse(argc, argv);
	if (!victim_common.foreground)
		go_to_background();
	set_signals();
	victim_problems_init();
}

/* Until now stderr was the starter's, so that a failing start could say why. */
static void open_stdio(void)
{
	const char *out = victim_common.log ? victim_common.log : "/dev/null";
	int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int fd = open(out, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (in < 0 || fd < 0)
		victim_die("open /dev/null or %s", out);
	if (dup2(in, 0) < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
		victim_die("dup2");
	close(in);
	close(fd);
}

void victim_ready(void)
{
	if (victim_common.foreground) {
		printf("%d\n", getpid());
		fflush(stdout);
	} else {
		open_stdio();
		if (write(starter, "k", 1) != 1)
			_exit(1);
		close(starter);
	}
	victim_beats_init();
}

void victim_child_begin(void)
{
	if (!victim_common.foreground) {
		open_stdio();
		close(starter);
	}
	signal(SIGTERM, SIG_DFL);
	signal(SIGUSR1, SIG_IGN);
	if (sigprocmask(SIG_SETMASK, &wait_mask, NULL))
		victim_die("sigprocmask");
}

const sigset_t *victim_wait_mask(void)
{
	return &wait_mask;
}

void victim_block(int sig)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, sig);
	sigaddset(&wait_mask, sig);
	if (sigprocmask(SIG_BLOCK, &set, NULL))
		victim_die("sigprocmask");
}

bool victim_stopping(void)
{
	return stopping;
}

bool victim_asked(void)
{
	bool was = asked;

	asked = 0;
	return was;
}

bool victim_wait(int64_t ns)
{
	struct timespec ts = { ns / VICTIM_SECOND, ns % VICTIM_SECOND };

	if (ppoll(NULL, 0, &ts, &wait_mask) < 0 && errno != EINTR)
		victim_die("ppoll");
	return !stopping;
}

void *victim_map(size_t bytes, int flags)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		victim_die("mmap of %zu bytes", bytes);
	return p;
}

void victim_fill(void *to, size_t bytes, uint64_t key)
{
	for (size_t i = 0; i < bytes; i += 8) {
		uint64_t word = victim_mix(key, i);

		memcpy((char *)to + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

long victim_compare(const void *have, size_t bytes, uint64_t key)
{
	const unsigned char *at = have;

	for (size_t i = 0; i < bytes; i++) {
		uint64_t word = victim_mix(key, i & ~(size_t)7);
		unsigned char want[8];

		memcpy(want, &word, 8);
		if (bytes - i >= 8 && !(i & 7) && !memcmp(at + i, want, 8))
			i += 7;
		else if (at[i] != want[i & 7])
			return (long)i;
	}
	return -1;
}
