#include "perfetto.h"
#include "text.h"
