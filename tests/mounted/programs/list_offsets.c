/* Reads a directory as old programs do, and goes back to offsets that it was given on the way.
 *
 *   list_offsets DIRECTORY STEP
 *
 * Prints the entries read, the largest offset, and how many of the offsets (each STEP-th, from the last to the first)
 * led back to the entry that had been there. Ends in 1, with the reason, when reading or going back fails.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAMES_MAX 400000

static long offsets[NAMES_MAX];
static char *names[NAMES_MAX];

int main(int argc, char **argv)
{
    size_t count = 0, tried = 0, step, at;
    unsigned long long largest = 0;
    struct dirent *entry;
    DIR *directory;

    if (argc != 3 || (step = strtoul(argv[2], NULL, 10)) == 0) {
        fprintf(stderr, "usage: list_offsets DIRECTORY STEP\n");
        return 2;
    }
    directory = opendir(argv[1]);
    if (directory == NULL) {
        perror(argv[1]);
        return 1;
    }
    for (;;) {
        errno = 0;
        offsets[count] = telldir(directory);
        if (offsets[count] == -1) {
            fprintf(stderr, "telldir after %zu entries: %s\n", count, strerror(errno));
            return 1;
        }
        entry = readdir(directory);
        if (entry == NULL && errno != 0) {
            fprintf(stderr, "readdir after %zu entries: %s\n", count, strerror(errno));
            return 1;
        }
        if (entry == NULL || count + 1 == NAMES_MAX)
            break;
        if ((unsigned long long)entry->d_off > largest)
            largest = (unsigned long long)entry->d_off;
        names[count++] = strdup(entry->d_name);
    }
    for (at = count; at-- > 0;) {
        if (at % step != 0)
            continue;
        seekdir(directory, offsets[at]);
        errno = 0;
        entry = readdir(directory);
        if (entry == NULL || strcmp(entry->d_name, names[at]) != 0) {
            fprintf(stderr, "offset %ld of '%s' leads to '%s' (%s)\n", offsets[at], names[at],
                    entry == NULL ? "" : entry->d_name, strerror(errno));
            return 1;
        }
        tried++;
    }
    printf("%zu entries, largest offset %llu, %zu found again\n", count, largest, tried);
    return 0;
}
