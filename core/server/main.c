/* The program; cli.c reads its command line. Alone in this file, so that specs and fuzzers link everything else. */
#include "server/cli.h"

int main(int argc, char **argv) { return cli_main(argc, argv); }
