/* The error log: lines for people, from any thread, one write(2) each, so lines never mix. Never
 * used on the path of a good request. The access log is another thing (proxy/access_log.h). */
#pragma once

#include <stdarg.h>
#include <stdbool.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Until it is called: stderr, LOG_LEVEL_INFO. `fd` is taken over, the old one closed unless it is stderr. */
void log_open(int fd, enum log_level level);
void log_set_level(enum log_level level);
bool log_wants(enum log_level level);
/* "2026-11-23T10:11:12.123Z error [pid.worker] text\n"; line breaks in the text (a traceback) are kept and indented. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));
void log_vwrite(enum log_level level, const char *format, va_list args) __attribute__((format(printf, 2, 0)));
/* The number that stands in this thread's lines; -1 (the default): none. */
void log_thread(int worker);

/* From now on this thread's lines, of all levels, go to `line` and nowhere else; NULL: to the log again. */
void log_capture(void (*line)(void *with, enum log_level, const char *text), void *with);
const char *log_level_name(enum log_level);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) (log_wants(LOG_LEVEL_DEBUG) ? log_write(LOG_LEVEL_DEBUG, __VA_ARGS__) : (void)0)
