// Two cards in one IOMMU group.

import DMAMemory
import PCI
import SystemPackage
import Testing

@testable import VFIO

/// Two cards in one IOMMU group, as the ports of a board without access control are.
@Suite struct SharedGroupTests {
  let kernel: FakeKernel
  static let second = "0000:00:04.1"

  init() throws {
    kernel = try FakeKernel()
    try kernel.addMember(SharedGroupTests.second, driver: "vfio-pci")
  }

  func open(_ address: String) throws -> VFIOFunction {
    try VFIOFunction.open(PCIAddress(address), system: kernel, roots: kernel.roots)
  }

  @Test func theGroupIsOpenedOnceAndClosedWithItsLastCard() throws {
    let one = try open(FakeKernel.address)
    let two = try open(SharedGroupTests.second)
    #expect(kernel.log.filter { $0.hasPrefix("open") } == ["open 7", "open vfio"])
    #expect(kernel.log.filter { $0.hasPrefix("device 0") } == ["device \(FakeKernel.address)", "device \(SharedGroupTests.second)"])
    #expect(throws: VFIOError.alreadyOpen(address: FakeKernel.address)) { try open(FakeKernel.address) }
    one.close()
    one.close()
    // Still held: somebody who comes from outside is refused.
    #expect(throws: Errno.resourceBusy) { _ = try kernel.open(kernel.roots.dev + "/vfio/7") }
    #expect(!two.isGone)
    two.close()
    _ = try kernel.open(kernel.roots.dev + "/vfio/7")
    _ = try open(SharedGroupTests.second)
  }

  @Test func aMappingStaysUntilTheLastCardLetsGo() throws {
    let (one, two) = (try open(FakeKernel.address), try open(SharedGroupTests.second))
    let (memory, other) = (try Page(), try Page())
    let iova = IOVA(rawValue: 0x1000)
    kernel.set { $0.log = [] }
    try one.map(memory.source, at: iova)
    try two.map(memory.source, at: iova)
    #expect(throws: DMAError.map(errno: Errno.fileExists.rawValue, count: 4096, iova: iova)) { try two.map(memory.source, at: iova) }
    try one.unmap(iova, count: 4096)
    #expect(throws: DMAError.unmap(errno: Errno.noSuchFileOrDirectory.rawValue, count: 4096, iova: iova)) { try one.unmap(iova, count: 4096) }
    #expect(kernel.log == ["map 0x1000 4096 flags 3"])
    // Other memory at an address that is taken is the kernel's to refuse.
    kernel.set { $0.errors["map"] = .fileExists }
    #expect(throws: DMAError.map(errno: Errno.fileExists.rawValue, count: 4096, iova: iova)) { try one.map(other.source, at: iova) }
    two.close()
    #expect(kernel.log.contains("unmap 0x1000"))
    one.close()
  }

  @Test func aSecondCardThatFailsLeavesTheFirstAlone() throws {
    let one = try open(FakeKernel.address)
    kernel.set { $0.errors["device"] = .noDevice }
    #expect(throws: VFIOError.gone(address: SharedGroupTests.second)) { try open(SharedGroupTests.second) }
    kernel.set { $0.errors = ["device info": .ioError] }
    #expect(throws: VFIOError.self) { try open(SharedGroupTests.second) }
    kernel.set { $0.errors = [:] }
    try one.map(Page().source, at: IOVA(rawValue: 0x1000))
    one.close()
    _ = try kernel.open(kernel.roots.dev + "/vfio/7")
  }
}
