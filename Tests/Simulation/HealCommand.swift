import Engine
import Platform
import TestSupport

extension World {
  /// Damaged chunks are stored again from what the disks still hold.
  func heal(_ collection: CollectionModel?) -> Operation {
    let text = "heal \(collection?.name ?? "all")"
    return Operation(
      kind: "heal", text: text,
      body: { stop in
        try self.engine().heal(collection?.name, stop: stop).map {
          "\($0.collection): \($0.healedChunks) of \($0.damagedChunks)"
        }.joined(separator: ", ")
      },
      settle: { ending, tolerance in
        if case .failed(let failure) = ending { try self.judge(failure, tolerance, text) }
      })
  }
}

extension Command {
  /// Most often after a verification, which is where healing learns what is damaged.
  static let healing = Command(name: "heal", weight: 6, when: \World.isDamaged) { world in
    try world.runUndisturbed(world.verify(nil))
    try world.runUndisturbed(world.heal(nil))
  }
}
