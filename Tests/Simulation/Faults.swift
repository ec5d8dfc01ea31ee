import FaultLayer
import Glibc
import SimulationCalls

/// What happens to the calls of an operation below the world's folder.
struct FaultPlan {
  enum Mode {
    case crash
    case stop
    /// - Parameter count: how many calls fail; 0: all from there on.
    case fail(Int32, count: Int)
  }

  let mode: Mode
  /// The call at which it happens, from 1.
  let at: Int
  var folders = SIMULATION_REPOSITORY | SIMULATION_DISKS | SIMULATION_ELSEWHERE
  var calls = FAULTLAYER_EVERYTHING

  var text: String {
    switch mode {
    case .crash: "crash at call \(at)"
    case .stop: "stop at call \(at)"
    case .fail(let error, let count):
      "\(error == ENOSPC ? "ENOSPC" : "EIO") at call \(at), \(count == 0 ? "for ever" : "\(count)")"
    }
  }
}

/// The layer below the engine: seeded chance, a virtual clock, and calls that go wrong.
enum Faults {
  static func begin(seed: UInt64, repository: String, disks: String) {
    faultlayer_clear_faults()
    let world = String(repository.dropLast("/repository".count))
    unsafe simulation_set_folders(world, repository, disks)
    seedRandom(seed)
    // Patience with a lock that somebody holds isn't slept away: whoever holds it is stopped.
    faultlayer_skip_sleeps(1)
    // It goes into the notes of locks, whose length must not depend on the day.
    faultlayer_set_process(4242)
  }

  /// Ids and secrets follow from here on.
  static func seedRandom(_ seed: UInt64) { faultlayer_seed_random(seed) }

  /// Each reading is three milliseconds later.
  static func setClock(_ nanoseconds: Int) { faultlayer_hold_clock(Int64(nanoseconds), 3_000_000) }

  /// Counts calls, and does nothing to them.
  static func count() { arm(SIMULATION_COUNT, FaultPlan(mode: .crash, at: 0)) }

  static func arm(_ plan: FaultPlan) {
    switch plan.mode {
    case .crash: arm(SIMULATION_CRASH, plan)
    case .stop: arm(SIMULATION_STOP, plan)
    case .fail(let error, let count): arm(SIMULATION_FAIL, plan, error: error, count: count)
    }
  }

  private static func arm(
    _ mode: Int, _ plan: FaultPlan, error: Int32 = 0, count: Int = 0
  ) {
    var raw = simulation_plan(
      mode: Int32(mode), folders: Int32(plan.folders), calls: UInt32(plan.calls),
      at: UInt64(plan.at), count: UInt64(count), error: error)
    unsafe simulation_arm(&raw)
  }

  /// - Returns: how many calls there were.
  @discardableResult
  static func end() -> Int { Int(simulation_disarm()) }
}
