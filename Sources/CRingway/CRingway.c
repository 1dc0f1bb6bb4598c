/* Storage only: everything else is in the headers. */
#include "CRingway.h"

struct rw_guard_table rw_guards;
__thread struct rw_thread rw_this_thread;
__thread struct rw_returns rw_these_returns;
