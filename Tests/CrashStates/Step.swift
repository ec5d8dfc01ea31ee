import FaultLayer
import Glibc

/// One recorded operation on the file system, as the model wants it.
struct Step {
  enum Kind {
    /// A file that was there before the record began.
    case known(object: UInt64, path: String)
    case create(object: UInt64, path: String)
    case unnamed(object: UInt64)
    case data(object: UInt64, DataEffect)
    case synchronize(object: UInt64)
    case synchronizeFolder(String)
    case synchronizeAll
    case rename(from: String, to: String)
    case exchange(String, String)
    case link(object: UInt64, to: String)
    case unlink(String)
    case makeFolder(String)
    case removeFolder(String)
    case note(String)
  }

  let kind: Kind

  /// A change of a file's bytes.
  enum DataEffect {
    case write(offset: Int, bytes: [UInt8])
    case truncate(size: Int)
    /// Zeros; the size stays.
    case punch(Range<Int>)
    /// Zeros; the file grows as far as that.
    case zero(Range<Int>)
    /// The file grows as far as that, with zeros.
    case allocate(end: Int)
  }

  /// What can't be told from the record must not be passed over.
  struct Unknown: Error, CustomStringConvertible {
    let description: String
  }

  /// The record of the fault layer.
  static func recorded() throws -> [Step] {
    var steps: [Step] = []
    for number in 0..<faultlayer_op_count() {
      unsafe steps.append(try Step(unsafe faultlayer_op_at(number)))
    }
    return steps
  }

  private init(_ op: faultlayer_op) throws {
    let path = unsafe String(cString: op.path)
    let other = unsafe String(cString: op.other)
    let object = unsafe op.object
    let (offset, length) = unsafe (Int(op.offset), Int(op.length))
    switch unsafe Int(op.kind) {
    case FAULTLAYER_OP_KNOWN: kind = .known(object: object, path: path)
    case FAULTLAYER_OP_CREATE: kind = .create(object: object, path: path)
    case FAULTLAYER_OP_UNNAMED: kind = .unnamed(object: object)
    case FAULTLAYER_OP_WRITE:
      let bytes = unsafe [UInt8](UnsafeBufferPointer(start: op.bytes, count: length))
      kind = .data(object: object, .write(offset: offset, bytes: bytes))
    case FAULTLAYER_OP_TRUNCATE: kind = .data(object: object, .truncate(size: length))
    case FAULTLAYER_OP_PUNCH: kind = .data(object: object, .punch(offset..<(offset + length)))
    case FAULTLAYER_OP_ZERO: kind = .data(object: object, .zero(offset..<(offset + length)))
    case FAULTLAYER_OP_ALLOCATE: kind = .data(object: object, .allocate(end: offset + length))
    case FAULTLAYER_OP_SYNC: kind = .synchronize(object: object)
    case FAULTLAYER_OP_SYNC_FOLDER: kind = .synchronizeFolder(path)
    case FAULTLAYER_OP_SYNC_ALL: kind = .synchronizeAll
    case FAULTLAYER_OP_RENAME: kind = .rename(from: path, to: other)
    case FAULTLAYER_OP_EXCHANGE: kind = .exchange(path, other)
    case FAULTLAYER_OP_LINK: kind = .link(object: object, to: other)
    case FAULTLAYER_OP_UNLINK: kind = .unlink(path)
    case FAULTLAYER_OP_MKDIR: kind = .makeFolder(path)
    case FAULTLAYER_OP_RMDIR: kind = .removeFolder(path)
    case FAULTLAYER_OP_MARK: kind = .note(path)
    default: throw Unknown(description: "operation \(unsafe op.number) of the record: \(path)")
    }
  }

  private init(_ kind: Kind) { self.kind = kind }
}

/// Lies about durability, to prove that the rig finds a program that tells them.
enum Sabotage: String, CaseIterable {
  /// No fsync of a file does anything.
  case files
  /// No fsync of a folder does anything.
  case folders
  /// A file is made durable only after it was renamed.
  case order

  func applied(to steps: [Step]) -> [Step] {
    switch self {
    case .files:
      return steps.map { step in
        if case .synchronize = step.kind { Step.nothing } else { step }
      }
    case .folders:
      return steps.map { step in
        if case .synchronizeFolder = step.kind { Step.nothing } else { step }
      }
    case .order:
      var changed = steps
      for index in changed.indices.dropFirst() {
        guard case .rename = changed[index].kind, case .synchronize = changed[index - 1].kind
        else { continue }
        changed.swapAt(index, index - 1)
      }
      return changed
    }
  }
}

extension Step {
  static let nothing = Step(.note("removed"))

  /// The last name of each file in the record.
  static func names(_ steps: [Step]) -> [UInt64: String] {
    var names: [UInt64: String] = [:]
    for step in steps {
      switch step.kind {
      case .known(let object, let path), .create(let object, let path): names[object] = path
      case .rename(let from, let to):
        for (object, name) in names where name == from { names[object] = to }
      default: break
      }
    }
    return names
  }

  var description: String {
    switch kind {
    case .data(let object, .write(let offset, let bytes)):
      "write \(bytes.count) at \(offset) of object \(object)"
    default: "\(kind)"
    }
  }
}
