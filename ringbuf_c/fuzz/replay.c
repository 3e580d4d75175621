// SPDX-License-Identifier: Apache-2.0
/*
 * replay DIRECTORY|FILE...: a fuzz target over inputs that are there already, without a
 * fuzzer and with any compiler.
 */
#include <dirent.h>
#include <sys/stat.h>

#include "fuzz.h"

static u32 inputs;

static void replay_file(const char *path, size_t size)
{
	FILE *file = fopen(path, "rb");
	u8 *bytes = exact_alloc(size);

	if (!file || fread(bytes, 1, size, file) != size) {
		perror(path);
		exit(1);
	}
	fclose(file);
	/* Flushed: known if this input is the last one. */
	printf("%s\n", path);
	fflush(stdout);
	LLVMFuzzerTestOneInput(bytes, size);
	free(bytes);
	inputs++;
}

static void replay(const char *path);

static void replay_directory(const char *path)
{
	struct dirent **entries;
	int nr = scandir(path, &entries, NULL, alphasort);

	for (int i = 0; i < nr; i++) {
		char name[4096];

		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			replay(name);
		free(entries[i]);
	}
	if (nr >= 0)
		free(entries);
}

static void replay(const char *path)
{
	struct stat stat_of;

	if (stat(path, &stat_of)) {
		perror(path);
		exit(1);
	}
	if (S_ISDIR(stat_of.st_mode))
		replay_directory(path);
	else
		replay_file(path, (size_t)stat_of.st_size);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i]);
	printf("%u inputs\n", inputs);
	/* None at all: the corpus is not where it should be. */
	return inputs ? 0 : 1;
}
