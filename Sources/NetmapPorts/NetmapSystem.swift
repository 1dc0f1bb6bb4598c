// Names to adapters, and registration.

public import NetmapAPI
public import NetmapCore
public import Netisr
internal import Platform

/// What a program wants to register.
public struct PortRequest: Sendable {
  /// `nr_name`, without "netmap:": "ix0", "vale0:a", "ix0{3".
  public var name: String
  public var selection: RingSelection
  /// The request as it came: sizes that ports are made with, region, extra buffers.
  public var register: RegisterRequest
  /// The region of an EXTMEM option.
  public var external: NetmapRegion?
  /// An OFFSETS option.
  public var offsets: OffsetsOption?

  public init(
    _ name: String, _ selection: RingSelection, register: RegisterRequest = RegisterRequest(), external: NetmapRegion? = nil,
    offsets: OffsetsOption? = nil
  ) {
    self.name = name
    self.selection = selection
    self.register = register
    self.external = external
    self.offsets = offsets
  }
}

/// Knows ports of one kind by their names.
public protocol NetmapPortProvider: AnyObject, Sendable {
  /// The adapter that a request means; nil when the name is not this provider's. On worker 0.
  /// - Parameter create: make a port that does not exist yet, where names make ports (switches, pipes).
  func adapter(for request: PortRequest, in system: NetmapSystem, create: Bool) throws(NetmapError) -> (any NetmapAdapter)?
}

/// netmap in one place: memory, ports by name, registration.
public final class NetmapSystem: Sendable {
  public let netisr: Netisr
  public let memory: NetmapMemory
  /// Of all rings (`no_timestamp`).
  public let settings: KringSettings
  private let providers = Guarded<[any NetmapPortProvider]>([])

  /// - Parameter memory: its regions; shared by all ports.
  public init(_ netisr: Netisr, memory: NetmapMemory, settings: KringSettings = KringSettings()) {
    self.netisr = netisr
    self.memory = memory
    self.settings = settings
  }

  /// Adds a provider; those that were added first are asked first.
  public func add(_ provider: any NetmapPortProvider) { providers.withLock { $0.append(provider) } }

  /// The provider of VALE switches, which handles their requests; nil without one.
  public var switchControl: (any NetmapSwitchControl)? {
    providers.withLock { $0.lazy.compactMap { $0 as? any NetmapSwitchControl }.first }
  }

  /// Registers a port for a program. From worker 0 or from a thread that is no worker.
  /// - Throws: ENXIO when no port has this name, EINVAL for rings and regions that do not exist, EBUSY, EAGAIN while the
  ///   port is being torn down, EOPNOTSUPP for offsets where the port has none, ENOMEM.
  public func register(_ request: PortRequest) throws(NetmapError) -> NetmapPort {
    try onControl { [self] () throws(NetmapError) in try registerOnControl(request) }
  }

  /// Runs `body` on worker 0. From worker 0 or from a thread that is no worker.
  public func onControl<T: Sendable>(_ body: @escaping @Sendable () throws(NetmapError) -> T) throws(NetmapError) -> T {
    let control = netisr.worker(0)
    if Worker.current != nil, !control.isCurrent {
      throw NetmapError(.EINVAL, "netmap's requests are made on worker 0 or on a thread that is no worker")
    }
    return try control.perform { Result { () throws(NetmapError) in try body() } }.get()
  }

  /// The adapter behind a name. On worker 0.
  public func adapter(for request: PortRequest, create: Bool) throws(NetmapError) -> any NetmapAdapter {
    for provider in providers.withLock({ $0 }) {
      if let found = try provider.adapter(for: request, in: self, create: create) { return found }
    }
    throw NetmapError(.ENXIO, "\(request.name): there is no port or interface of this name")
  }

  private func registerOnControl(_ request: PortRequest) throws(NetmapError) -> NetmapPort {
    let adapter = try adapter(for: request, create: true)
    return try open(adapter, request)
  }

  /// Registers an adapter that is known. On worker 0.
  public func open(_ adapter: any NetmapAdapter, _ request: PortRequest) throws(NetmapError) -> NetmapPort {
    try adapter.admit(request.selection)
    adapter.krings.settings = settings
    let region = try region(for: request, adapter)
    try adapter.prepare(region)
    let open = try adapter.krings.open(
      adapter, request.selection, in: region, extra: Int(clamping: request.register.extraBuffers), offsets: request.offsets)
    return NetmapPort(adapter, open, control: netisr.worker(0), clock: netisr.clock, flags: request.selection.flags)
  }

  /// The region in which a request wants a port, or has to have it. On worker 0.
  func region(for request: PortRequest, _ adapter: any NetmapAdapter) throws(NetmapError) -> NetmapRegion {
    if let external = request.external { return external }
    if request.register.memoryID != 0 { return try memory.find(request.register.memoryID) }
    if let region = adapter.krings.region { return region }
    return try adapter.defaultRegion(memory)
  }
}
