import Glibc
import Platform
import TestSupport
import Testing
import VirtualMachines

@Suite("The process of a guest")
struct GuestProcessTests {
  @Test("Is outdated when its program was replaced")
  func outdated() throws {
    let folder = TemporaryDirectory()
    let uuid = "00000000-0000-4000-8000-" + hexadecimal(randomBytes(6))
    let program = folder.file("qemu")
    try Shell.run("cp", "/bin/sh", program)
    let process = try RunningProcess([program, "-c", "kill -STOP $$", "qemu", "-uuid", uuid])
    defer { process.signal(SIGKILL) }
    let found = try pollUntil { readText("/proc/\(process.id)/cmdline")?.contains(uuid) == true }
    #expect(found && !GuestProcess.isOutdated(uuid: uuid))
    try removeFile(program)
    #expect(GuestProcess.isOutdated(uuid: uuid))
    #expect(!GuestProcess.isOutdated(uuid: String(uuid.reversed())))
  }

  private func pollUntil(_ condition: () -> Bool) throws -> Bool {
    for _ in 0..<6000 where !condition() { usleep(10_000) }
    return condition()
  }
}
