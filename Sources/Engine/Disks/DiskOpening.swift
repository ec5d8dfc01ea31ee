import BlockDevices
import Platform
import VirtualMachines

extension DiskSource {
  /// Opens a disk where the collection remembers it, to be read at once.
  ///
  /// - Throws: as ``DiskSource/init(path:)``, `busy` for an image that a running guest holds, `refused` for a disk
  ///   that only a snapshot of its guest can read.
  static func open(
    _ locator: DiskLocator, stop: CancellationFlag = CancellationFlag()
  ) throws(StrobeError) -> DiskSource {
    switch locator {
    case .local(let path): return try DiskSource(path: path)
    case .network(let uri):
      return try DiskSource(NBDDisk(uri, stop: stop), path: NBDDisk.displayed(uri))
    case .image(let path, let format):
      let server = try ImageServer(path, format, isWritable: false)
      return try DiskSource(
        server.open(stop: stop), path: locator.text, imageFile: path, keeper: server)
    case .guest(let guest, let disk):
      throw StrobeError(
        .refused,
        "disk \(disk) of \(guest.description) can only be read by a snapshot of the guest",
        advice: "shut the guest down and name the image: --disk NAME=FORMAT:PATH")
    }
  }

  /// Refuses a file that looks like an image in a format although it was named as a raw one.
  ///
  /// Which it is can't be told from the file: what a guest writes to the beginning of a raw disk may look like
  /// anything.
  static func refuseAmbiguous(_ path: String) throws(StrobeError) {
    guard let facts = try FileFacts(path: path), facts.isRegularFile,
      let format = try ImageFormat(ofFile: path)
    else { return }
    throw StrobeError(
      .usage, "\(path) looks like a \(format.rawValue) image",
      advice:
        "say what it is: \(format.rawValue):\(path) for the disk in it, raw:\(path) for the file as it is"
    )
  }
}
