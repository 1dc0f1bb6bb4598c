// PCI configuration space: capabilities for MSI-X, the virtio structures, the access window, power
// management and PCI Express (clause 4.1.4).

import ModelKit

extension VirtioNetModel {
  /// MSI-X at 0x40, common 0x50, interrupt 0x60, device 0x70, notify 0x80, access window 0x94.
  static func makeConfiguration(_ options: VirtioNetModelOptions) -> ModelConfiguration {
    let space = ModelConfiguration(
      vendor: 0x1af4, device: options.deviceID, subsystemVendor: 0x1af4, subsystemDevice: 0x1100,
      revision: options.isModern ? 1 : 0)
    space.setBAR(VirtioModelLayout.interruptBAR, count: VirtioModelLayout.interruptBARCount, is64Bit: false)
    space.setBAR(VirtioModelLayout.bar, count: VirtioModelLayout.count, is64Bit: true, isPrefetchable: true)
    if options.vectorCount > 0 {
      space.addMSIX(
        at: 0x40, vectors: options.vectorCount, bar: VirtioModelLayout.interruptBAR, table: 0,
        pending: VirtioModelLayout.pendingBits)
    }
    if options.isModern {
      addStructure(space, at: 0x50, kind: 1, offset: VirtioModelLayout.common, count: VirtioModelLayout.commonCount)
      addStructure(
        space, at: 0x60, kind: 3, offset: VirtioModelLayout.interruptStatus,
        count: VirtioModelLayout.interruptStatusCount)
      addStructure(space, at: 0x70, kind: 4, offset: VirtioModelLayout.device, count: VirtioModelLayout.deviceCount)
      addStructure(
        space, at: 0x80, kind: 2, offset: VirtioModelLayout.notify, count: VirtioModelLayout.notifyCount,
        tail: little32(options.notifyMultiplier))
      // cap.bar, cap.offset, cap.length and the data are the driver's.
      space.addCapability(
        9, at: VirtioModelLayout.access, body: [20, 5] + [UInt8](repeating: 0, count: 16),
        writable: [0, 0, 0xff, 0, 0, 0] + [UInt8](repeating: 0xff, count: 12))
    }
    space.addPowerManagement(at: 0xa8)
    space.addExpress(at: 0xb0)
    space.seal()
    return space
  }

  private static func addStructure(
    _ space: ModelConfiguration, at: Int, kind: UInt8, offset: Int, count: Int, tail: [UInt8] = []
  ) {
    let body: [UInt8] = [UInt8(16 + tail.count), kind, UInt8(VirtioModelLayout.bar), 0, 0, 0]
    space.addCapability(9, at: at, body: body + little32(UInt32(offset)) + little32(UInt32(count)) + tail)
  }

  private static func little32(_ value: UInt32) -> [UInt8] {
    [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: value >> UInt32($0)) }
  }

  /// Clause 4.1.4.9: a read of the data reads the register that the other fields name, a write
  /// writes it.
  func connectAccessWindow() {
    guard options.isModern else { return }
    configuration.window = VirtioModelLayout.accessData..<VirtioModelLayout.accessData + 4
    configuration.onWindowRead = { [unowned self] in
      guard let (bar, offset, width) = accessTarget else { return }
      configuration.set(Self.little32(read(bar: bar, offset: offset, width: width)), at: VirtioModelLayout.accessData)
    }
    configuration.onWindowWrite = { [unowned self] in
      guard let (bar, offset, width) = accessTarget else { return }
      var value: UInt32 = 0
      for (i, byte) in configuration.bytes(VirtioModelLayout.accessData..<VirtioModelLayout.accessData + 4).enumerated() {
        value |= UInt32(byte) << UInt32(8 * i)
      }
      write(value, bar: bar, offset: offset, width: width)
    }
  }

  private var accessTarget: (bar: Int, offset: Int, width: Int)? {
    func field(_ at: Int) -> Int {
      configuration.bytes(at..<at + 4).enumerated().reduce(0) { $0 | Int($1.element) << (8 * $1.offset) }
    }
    let bar = field(VirtioModelLayout.accessBAR) & 0xff
    let offset = field(VirtioModelLayout.accessOffset)
    let width = field(VirtioModelLayout.accessLength)
    guard [1, 2, 4].contains(width), offset & (width - 1) == 0,
      let found = bars.first(where: { $0.index == bar }), offset <= found.memory.count - width
    else { return nil }
    return (bar, offset, width)
  }
}
