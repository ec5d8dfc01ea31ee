import Platform

/// What libvirt is told to back up, and what it says of a backup that runs.
///
/// Source: https://libvirt.org/formatbackup.html, https://libvirt.org/formatcheckpoint.html.
struct BackupDocuments {
  struct Disk {
    let target: String
    /// Whether what changed since the parent's checkpoint is told.
    var isIncremental: Bool
    /// Whether the new checkpoint is to count its changes.
    let counts: Bool
    let scratch: String
  }

  /// The name of what changed since the parent, in each disk's export.
  static let bitmap = "changed"

  let socket: String
  let disks: [Disk]
  /// Disks of the domain that stay out.
  let others: [String]
  /// The parent's checkpoint.
  let parent: String?
  let checkpoint: String?

  var backup: String {
    var lines = ["<domainbackup mode='pull'>"]
    lines.append("<server transport='unix' socket='\(socket.escapedForXML)'/>")
    lines.append("<disks>")
    for disk in disks {
      let name = disk.target.escapedForXML
      let parent = disk.isIncremental ? self.parent : nil
      let mode =
        parent.map {
          "backupmode='incremental' incremental='\($0.escapedForXML)' exportbitmap='\(Self.bitmap)'"
        } ?? "backupmode='full'"
      lines += [
        "<disk name='\(name)' backup='yes' type='file' \(mode) exportname='\(name)'>",
        "<driver type='qcow2'/><scratch file='\(disk.scratch.escapedForXML)'/></disk>",
      ]
    }
    lines += others.map { "<disk name='\($0.escapedForXML)' backup='no'/>" }
    return (lines + ["</disks>", "</domainbackup>"]).joined(separator: "\n")
  }

  /// nil when no disk of it would count.
  var checkpointDocument: String? {
    guard let checkpoint, disks.contains(where: \.counts) else { return nil }
    let counting = disks.filter(\.counts).map(\.target)
    let idle = disks.filter { !$0.counts }.map(\.target) + others
    return Self.checkpoint(checkpoint, counting: counting, idle: idle, time: nil)
  }

  /// - Parameter time: when it was made, for one that libvirt knows already.
  static func checkpoint(_ name: String, counting: [String], idle: [String] = [], time: String?)
    -> String
  {
    let name = name.escapedForXML
    var lines = ["<domaincheckpoint>", "<name>\(name)</name>"]
    if let time { lines.append("<creationTime>\(time.escapedForXML)</creationTime>") }
    lines.append("<disks>")
    lines += counting.map {
      "<disk name='\($0.escapedForXML)' checkpoint='bitmap' bitmap='\(name)'/>"
    }
    lines += idle.map { "<disk name='\($0.escapedForXML)' checkpoint='no'/>" }
    return (lines + ["</disks>", "</domaincheckpoint>"]).joined(separator: "\n")
  }

  /// The socket that a backup is read through, or nil when it isn't read through one.
  static func socket(of backup: String) -> String? {
    guard let document = try? XMLElement(parsing: backup) else { return nil }
    return document.child("server")?["socket"]
  }
}
