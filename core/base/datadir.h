/* Where this program's own Lua files are: the directory that holds lua/ and scripts/. */
#pragma once

/* The source tree for a program that was built there, else ../share/moongate beside the program's directory, else
 * where it was configured to be installed. Found once; absolute; any thread. */
const char *datadir(void);
