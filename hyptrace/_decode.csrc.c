#include "perfetto.h"
