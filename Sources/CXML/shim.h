#include <libxml/parser.h>
#include <libxml/tree.h>

// `xmlFree` is a variable.
static inline void cxml_free(void *memory) { xmlFree(memory); }
