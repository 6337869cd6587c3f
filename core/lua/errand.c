/* Errands: runs that nobody's request waits for. */
#include "lua/errand.h"

#include "lua/report.h"
#include "lua/state_rest.h"

#include "base/must.h"
#include "store/metrics.h"

#include <stdlib.h>

static void bury_errand(struct grave *grave) {
    struct errand *errand = container_of(grave, struct errand, grave);
    arena_fini(&errand->arena);
    free(errand);
}

/* Takes it out of everything; the memory goes at the end of the turn. */
static void end_errand(struct errand *errand) {
    list_remove(&errand->node);
    errand->state->rest->errand_count--;
    task_forget(&errand->task);
    subject_end(&errand->subject);
    loop_bury(&errand->state->worker->loop, &errand->grave);
}

void errand_log_failure(struct errand *errand) {
    struct metric *failures = metric_get(METRIC_COUNTER, "moongate_task_errors_total",
                                         "Spawned and repeated functions that failed", SLICE(""));
    metric_add(failures, (int)errand->state->worker->index, 1);
    report_failure(&errand->subject, errand->what, report_text(errand->state, errand_stack(errand)));
    lua_pop(errand->state->L, 1);
}

static void go_on(struct errand *errand, enum run_status status) {
    if (status == RUN_WAITS) return;
    if (errand->ended) errand->ended(errand, status);
    else if (status == RUN_FAILED) errand_log_failure(errand);
    end_errand(errand);
}

static void errand_advance(struct task *task) {
    struct errand *errand = container_of(task, struct errand, task);
    if (errand->begun) {
        go_on(errand, run_go_on(errand->subject.run));
        return;
    }
    errand->begun = true;
    go_on(errand, run_start(errand->subject.run, errand->args));
}

struct errand *errand_open(struct state *state, const char *what) {
    struct errand *errand = must_calloc(1, sizeof *errand);
    errand->state = state;
    errand->what = what;
    task_init(&errand->task, errand_advance);
    grave_init(&errand->grave, bury_errand);
    arena_init(&errand->arena);
    errand->subject = (struct subject){
        .kind = SUBJECT_KEEPER, .worker = state->worker, .arena = &errand->arena, .task = &errand->task
    };
    run_open(state, &errand->subject)->endless = true;
    list_init(&errand->node);
    list_push(&state->rest->errands, &errand->node);
    state->rest->errand_count++;
    return errand;
}

void errand_begin(struct errand *errand, int args) {
    errand->args = args;
    task_wake(&errand->state->worker->loop, &errand->task);
}

void errand_run(struct errand *errand, int args) {
    errand->args = args;
    errand_advance(&errand->task);
}

void errand_close(struct errand *errand) { end_errand(errand); }
