/* The nodes of a shard that expire: a binary heap, soonest first. Each node knows its place in it, so that one whose
 * time is changed, or that is removed, is not sought. */
#include "store/shared_inside.h"

#include <stdlib.h>

static void heap_place(struct shard *s, size_t i, struct node *n) {
    s->heap[i] = n;
    n->heap_index = (uint32_t)i;
}

static void heap_rise(struct shard *s, size_t i, struct node *n) {
    while (i > 0 && s->heap[(i - 1) / 2]->expires > n->expires) {
        heap_place(s, i, s->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    heap_place(s, i, n);
}

static void heap_sink(struct shard *s, size_t i, struct node *n) {
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= s->heap_count) break;
        if (child + 1 < s->heap_count && s->heap[child + 1]->expires < s->heap[child]->expires) child++;
        if (s->heap[child]->expires >= n->expires) break;
        heap_place(s, i, s->heap[child]);
        i = child;
    }
    heap_place(s, i, n);
}

bool heap_reserve(struct shard *s) {
    if (s->heap_count < s->heap_room) return true;
    size_t room = s->heap_room ? s->heap_room * 2 : FIRST_ROOM;
    struct node **heap = realloc(s->heap, room * sizeof *heap);
    if (!heap) return false;
    s->heap = heap;
    s->heap_room = room;
    return true;
}

void heap_add(struct shard *s, struct node *n) {
    s->heap_count++;
    heap_rise(s, s->heap_count - 1, n);
}

void heap_remove(struct shard *s, struct node *n) {
    size_t i = n->heap_index;
    struct node *last = s->heap[--s->heap_count];
    if (last == n) return;
    if (i > 0 && s->heap[(i - 1) / 2]->expires > last->expires) heap_rise(s, i, last);
    else heap_sink(s, i, last);
}
