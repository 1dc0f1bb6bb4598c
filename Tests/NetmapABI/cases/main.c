/* netmap-abi: netmap's binary interface, tried from outside.
 *
 *   netmap-abi --list                 names, and what each needs
 *   netmap-abi --only NAME            this case, in this process; 0 held, 1 did not, 77 skipped
 *   netmap-abi [--filter WORD]...     all of them, each in a child; TAP on the standard output
 */
#include "../abi.h"

#include <sys/wait.h>

static const struct abi_case *const tables[] = {
	request_cases, port_cases, option_cases, legacy_cases, layout_cases, sync_cases, pipe_cases, vale_cases, monitor_cases, memory_cases,
	wait_cases, thread_cases, process_cases, duplicate_cases, foreign_cases, loop_cases, card_cases, host_cases, attach_cases,
};

static const char *need_names[] = {"-", "cards", "two-cards"};

static void run_here(const struct abi_case *one) {
	alarm(60);
	one->run();
	fflush(NULL);
	_exit(0);
}

static int run_apart(const struct abi_case *one, int number) {
	fflush(NULL);
	int tell[2];
	if (pipe(tell)) return 1;
	pid_t pid = fork();
	if (pid == 0) {
		dup2(tell[1], 2);
		close(tell[0]);
		close(tell[1]);
		run_here(one);
	}
	close(tell[1]);
	char text[1024];
	ssize_t count, all = 0;
	while ((count = read(tell[0], text + all, sizeof text - 1 - (size_t)all)) > 0 && all + count < (ssize_t)sizeof text - 1) all += count;
	text[all] = 0;
	close(tell[0]);
	int status = 1;
	waitpid(pid, &status, 0);
	bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == 77, good = status == 0 || skipped;
	text[strcspn(text, "\n")] = 0;
	printf("%sok %d - %s%s%s\n", good ? "" : "not ", number, one->name, skipped ? " # SKIP " : text[0] ? " # " : "", text);
	if (WIFSIGNALED(status)) printf("# ended by signal %d\n", WTERMSIG(status));
	return good ? 0 : 1;
}

int main(int count, char **words) {
	const char *only = NULL, *filter = NULL;
	bool list = false;
	for (int i = 1; i < count; i++) {
		if (!strcmp(words[i], "--list")) list = true;
		else if (!strcmp(words[i], "--only") && i + 1 < count) only = words[++i];
		else if (!strcmp(words[i], "--filter") && i + 1 < count) filter = words[++i];
		else if (!strcmp(words[i], "--inherited") && i + 1 < count) return inherited(atoi(words[++i]));
		else {
			fprintf(stderr, "usage: netmap-abi [--list | --only NAME | --filter WORD]\n");
			return 64;
		}
	}
	int number = 0, failed = 0;
	for (size_t t = 0; t < sizeof tables / sizeof *tables; t++)
		for (const struct abi_case *one = tables[t]; one->name; one++) {
			if (list) printf("%s %s\n", one->name, need_names[one->need]);
			else if (only && !strcmp(only, one->name)) run_here(one);
			else if (!only && (!filter || strstr(one->name, filter))) failed += run_apart(one, ++number);
		}
	if (only) {
		fprintf(stderr, "there is no case %s\n", only);
		return 64;
	}
	if (!list) printf("1..%d\n", number);
	return failed != 0;
}
