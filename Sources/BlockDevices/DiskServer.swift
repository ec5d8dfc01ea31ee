package import Platform

/// A process that serves a disk for as long as somebody holds this object.
package protocol DiskServer: AnyObject, Sendable {
  /// Ends it and waits until what it wrote is in its files. May be called again.
  func end() throws(StrobeError)
}

/// An image file that is being made beside its name: as ``PartialFile`` says, but what is in it is written by a
/// server.
package struct PartialImage: ~Copyable {
  package let path: String
  /// Whether it is what an interrupted restore left.
  package let wasThere: Bool
  let file: OpenFile

  /// - Throws: `busy` when another restore makes that file.
  package init(for target: String, resumes: Bool) throws(StrobeError) {
    var wasThere = false
    file = OpenFile(try PartialFile.open(for: target, resumes: resumes, wasThere: &wasThere))
    path = PartialFile.path(of: target)
    self.wasThere = wasThere
  }
}
