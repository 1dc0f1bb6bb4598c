// What a model reaches beyond its registers.

/// The bus a model sits on: memory, interrupts, time, and a place for complaints.
public final class ModelBus {
  /// How interrupts leave: the index numbers of VFIO.
  public enum InterruptKind: Int, Sendable { case intx = 0, msi = 1, msix = 2 }

  public let memory = ModelMemory()
  /// Nanoseconds: real or virtual, as the host says. Never goes back.
  public var now: UInt64 = 0
  /// Whether doorbell pages are shared with the driver.
  public var sharesDoorbells = false
  /// Which kind the driver has switched on; nil when none.
  public var interruptKind: InterruptKind?
  /// Where interrupts go. INTx: `vector` 0, and the line falls when the driver has been served.
  public var deliver: (_ kind: InterruptKind, _ vector: Int) -> Void = { _, _ in }
  /// Interrupts raised, by MSI-X vector (or 0).
  public private(set) var interrupts: [Int: Int] = [:]
  /// What the driver did against the documents, oldest first; at most 256 lines are kept.
  public private(set) var complaints: [String] = []
  /// All of them.
  public private(set) var complaintCount = 0

  public init() {}

  /// Raises an MSI-X vector, or MSI or INTx where those are on. A vector that the driver did not
  /// connect is counted and goes nowhere.
  public func interrupt(_ vector: Int) {
    interrupts[vector, default: 0] += 1
    if let kind = interruptKind { deliver(kind, kind == .msix ? vector : 0) }
  }

  public func complain(_ text: @autoclosure () -> String) {
    complaintCount += 1
    if complaints.count < 256 { complaints.append(text()) }
  }

  public func forgetComplaints() {
    complaints = []
    complaintCount = 0
  }
}
