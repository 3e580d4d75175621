#include "pack.h"
#include "perfetto.h"
#include "text.h"
