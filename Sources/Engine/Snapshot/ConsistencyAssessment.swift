import BlockDevices
import Platform
import SnapshotRepository

/// What a pass without a freeze achieved: an instant of all disks only if nobody wrote to any of them
/// from before the first read until after the last.
struct ConsistencyAssessment {
  private let plans: [DiskPlan]
  private let marks: [WriteMark]
  private let before: [String]

  /// Looks at the disks before anything is read.
  init(_ plans: [DiskPlan]) throws(StrobeError) {
    self.plans = plans
    var marks: [WriteMark] = []
    var reasons: [String] = []
    for plan in plans {
      reasons += try Self.writers(plan)
      marks.append(try WriteMark(of: plan.source))
    }
    self.marks = marks
    before = reasons
  }

  /// Looks at the disks again after everything was read.
  func finish() throws(StrobeError) -> (level: Consistency, reasons: [String]) {
    var reasons = before
    for (plan, mark) in zip(plans, marks) {
      for reason in try Self.writers(plan) where !reasons.contains(reason) {
        reasons.append(reason)
      }
      if try WriteMark(of: plan.source) != mark {
        reasons.append("disk \(plan.name): \(plan.source.path) was written to while it was read")
      }
    }
    return (reasons.isEmpty ? .crashConsistent : .inconsistent, reasons)
  }

  private static func writers(_ plan: DiskPlan) throws(StrobeError) -> [String] {
    let use = try DiskUse(of: plan.source.facts, path: plan.source.path)
    if let mount = use.writableMount {
      return [
        "disk \(plan.name): \(plan.source.path) is mounted read-write at \(mount.mountPoint) and was not frozen"
      ]
    }
    return use.otherWriter.map {
      ["disk \(plan.name): \(plan.source.path): \($0), and it was not frozen"]
    } ?? []
  }
}
