import Glibc
import Platform
import TestSupport
import Testing

/// A file system in user space on a block device, which the kernel can't freeze.
final class FuseServer {
  static let isAvailable =
    unsafe Machine.isRoot && access("/dev/fuse", R_OK | W_OK) == 0
    && (try? Shell.capture(["python3", "-c", ""]).status) == 0

  let mountPoint: String

  private static let program = """
    import ctypes, os, struct, sys
    device, place = sys.argv[1:3]
    fd = os.open('/dev/fuse', os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    data = b'fd=%d,rootmode=40000,user_id=0,group_id=0' % fd
    if libc.mount(device.encode(), place.encode(), b'fuseblk', 0, data):
        sys.exit('mount: %d' % ctypes.get_errno())
    attributes = struct.pack('<QQQQQQIIIIIIIIII', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
    while True:
        try: request = os.read(fd, 1 << 20)
        except OSError as error:
            if error.errno == 2: continue
            break
        length, code, unique = struct.unpack_from('<IIQ', request)
        error, body = 0, b''
        if code == 26: body = struct.pack('<IIIIHHII', 7, 19, 65536, 0, 0, 0, 65536, 0)
        elif code == 3: body = struct.pack('<QII', 1, 0, 0) + attributes
        elif code == 27: body = struct.pack('<QII', 1, 0, 0)
        elif code == 17: body = struct.pack('<QQQQQIIII', 1, 1, 1, 1, 1, 4096, 255, 4096, 0) + bytes(24)
        elif code in (2, 36, 42): continue
        elif code not in (29, 25, 38): error = -38
        os.write(fd, struct.pack('<IiQ', 16 + len(body), error, unique) + body)
    """

  private let server: RunningProcess

  init(on device: String, in rig: Rig) throws {
    let place = rig.file("fuse")
    try makeDirectories(place)
    try writeBytes(Array(Self.program.utf8), to: rig.file("fuse.py"))
    server = try RunningProcess(
      ["python3", rig.file("fuse.py"), device, place], output: rig.file("fuse"))
    mountPoint = place
    let process = server
    rig.atEnd {
      unmount(place)
      process.signal(SIGKILL)
      process.wait()
    }
    try waitUntil("mounted") {
      process.hasEnded || (readText("/proc/self/mounts") ?? "").contains(" \(place) ")
    }
    try #require(!process.hasEnded, "\(readText(rig.file("fuse.err")) ?? "")")
  }
}
