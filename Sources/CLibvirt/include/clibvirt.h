// libvirt's C library, loaded when it is needed first: Strobe runs where there is none.
#ifndef STROBE_CLIBVIRT_H
#define STROBE_CLIBVIRT_H

// Loads libvirt.so.0. NULL when it worked, now or before; else what dlopen(3) says.
const char *clibvirt_load(void);

#endif
