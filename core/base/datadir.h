/* Where this program's own files are. Found once; absolute; any thread. */
#pragma once

/* The directory that holds lua/ and scripts/: the source tree for a program that was built there, else
 * ../share/moongate beside the program's directory, else where it was configured to be installed. For the test kit,
 * which is a module of some other program, the module's own place counts. */
const char *datadir(void);
/* The directory of moongate_kit.so: the program's own in a build tree, else lib/moongate beside share/moongate. */
const char *kitdir(void);
