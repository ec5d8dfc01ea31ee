package import BlockDevices
import CLinux
import Glibc
package import Platform
import Synchronization

/// `qemu-nbd` that serves one image file on a private socket, for as long as this object lives.
///
/// Invariants:
/// - It never outlives its clients, and so not this process: it ends with the last connection, and before the
///   first with the thread that started it (prctl(2), PR_SET_PDEATHSIG).
/// - The socket lies in a directory of this user alone.
/// - The format is what the caller says, never what the file looks like: a raw disk begins with what its guest
///   wrote.
/// - QEMU's own locks hold: an image that a running guest writes to isn't served.
///
/// Source: qemu-nbd(8); sd_listen_fds(3) for the inherited socket.
package final class ImageServer: DiskServer {
  package let uri: String
  private let path: String
  private let folder: String
  /// Locked for as long as the folder is in use.
  private let folderLock: FileDescriptor
  private let process: Mutex<ChildProcess>
  private let complaints: OutputFile
  private let hasEnded = Atomic<Bool>(false)
  /// Whether it ever served anything: before, there is nothing to be written.
  private let hasServed = Atomic<Bool>(false)

  /// $0: the signal that it gets when the thread that started it ends; $1: this process. One whose parent went before it could
  /// say so ends by itself.
  private static let script = """
    exec setpriv --pdeathsig "$0" sh -c \
      'test "$PPID" = "$0" || exit 1; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"' "$@"
    """

  /// Milliseconds that it may take to write what it keeps in memory.
  private static let endMilliseconds = 120_000

  /// - Parameters:
  ///   - path: the image file.
  ///   - isWritable: whether it is a target.
  package init(_ path: String, _ format: ImageFormat, isWritable: Bool) throws(StrobeError) {
    let program = try ProgramRun.find("qemu-nbd", package: "qemu-utils")
    let facts = try FileFacts(path: path)
    guard let facts else { throw StrobeError(.notFound, "image \(path) does not exist") }
    // A pipe would be waited at for ever.
    guard facts.isRegularFile || facts.isBlockDevice else {
      throw StrobeError(.usage, "image \(path) is neither a file nor a block device")
    }
    self.path = path
    if !isWritable { try BackingChain.check(path, format) }
    folder = try PrivateFolder.make()
    let socket = folder + "/nbd"
    uri = "nbd+unix:///?socket=\(socket)"
    do throws(StrobeError) {
      folderLock = try FileDescriptor(opening: folder, O_RDONLY | O_DIRECTORY)
      _ = clinux_try_lock(folderLock.number, 1)
      let listener = try UnixSocket.listen(socket)
      let arguments =
        [
          "-c", Self.script, isWritable ? "TERM" : "KILL", "\(getpid())", program, "--image-opts",
          "--shared=0", isWritable ? "--discard=unmap" : "--read-only",
        ] + (facts.direct_offset_alignment > 0 ? ["--cache=none", "--aio=native"] : [])
        + [Self.options(path, format)]
      let (process, complaints) = try ProgramRun.start(
        "/bin/sh", arguments, inherited: [listener.number])
      self.process = Mutex(process)
      self.complaints = complaints
    } catch {
      PrivateFolder.remove(folder)
      throw error
    }
  }

  deinit {
    try? end()
    PrivateFolder.remove(folder)
  }

  /// See qemu(1), image options: a comma in a value is doubled.
  private static func options(_ path: String, _ format: ImageFormat) -> String {
    let name = path.split(separator: ",", omittingEmptySubsequences: false).joined(separator: ",,")
    return "driver=\(format.rawValue),file.driver=file,file.filename=\(name)"
  }

  /// What it serves.
  ///
  /// - Throws: `busy` when a running guest holds the image, `usage` when it isn't of the format.
  package func open(stop: CancellationFlag = CancellationFlag()) throws(StrobeError) -> NBDDisk {
    do throws(StrobeError) {
      let disk = try NBDDisk(uri, isStill: true, stop: stop)
      hasServed.store(true, ordering: .relaxed)
      return disk
    } catch {
      guard isOver else { throw error }
      throw refused()
    }
  }

  /// Why it ended before it served anything.
  private func refused() -> StrobeError {
    let text = complaints.text
    if text.contains("lock") {
      return StrobeError(
        .busy, "image \(path) is held by a running guest or another program of QEMU's",
        advice:
          "take it through its guest, with --qmp SOCKET or --libvirt DOMAIN, or shut that down")
    }
    return StrobeError(
      .usage, "image \(path) can't be opened: \(text)", advice: "is it of the format that was said?"
    )
  }

  private var isOver: Bool {
    for _ in 0..<200 {
      if process.withLock({ $0.isOver }) { return true }
      usleep(10_000)
    }
    return false
  }

  package func end() throws(StrobeError) {
    guard !hasEnded.exchange(true, ordering: .sequentiallyConsistent) else { return }
    let limit = monotonicMilliseconds() + Self.endMilliseconds
    let status = process.withLock { process in
      process.signal(hasServed.load(ordering: .relaxed) ? SIGTERM : SIGKILL)
      while !process.isOver {
        if monotonicMilliseconds() > limit { process.signal(SIGKILL) }
        usleep(500)
      }
      return process.collect()
    }
    guard status == 0 || !hasServed.load(ordering: .relaxed) else {
      throw StrobeError(
        .system(errno: EIO, call: "qemu-nbd", object: path),
        "the server of image \(path) failed: \(complaints.text)")
    }
  }

  /// Makes an image file that reads as zeros, in place of what is at `path`.
  ///
  /// - Parameter size: bytes.
  package static func create(
    _ path: String, _ format: ImageFormat, size: Int, stop: CancellationFlag
  ) throws(StrobeError) {
    let program = try ProgramRun.find("qemu-img", package: "qemu-utils")
    try ProgramRun.run(
      program, ["create", "-q", "-f", format.rawValue, path, "\(size)"], milliseconds: 60_000,
      stop: stop)
  }
}
