// swift-tools-version: 6.2
// Ringway: a kernel-bypass network stack for Linux. docs/architecture.md says what
// each module is for; tools/floors holds the dependencies below to the table of floors.
import PackageDescription

let settings: [SwiftSetting] = [
  .strictMemorySafety(),
  // The @_noAllocation and @_noLocks checks run on optimised code only.
  .define("RINGWAY_CHECKED", .when(configuration: .release)),
]

let system: Target.Dependency = .product(name: "SystemPackage", package: "swift-system")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")

func module(_ name: String, _ dependencies: [Target.Dependency], in folder: String = "Sources") -> Target {
  .target(name: name, dependencies: dependencies, path: "\(folder)/\(name)", swiftSettings: settings)
}

func tests(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .testTarget(
    name: "\(name)Tests", dependencies: [.byName(name: name)] + dependencies, path: "Tests/\(name)",
    swiftSettings: settings)
}

/// RINGWAY_TESTS=Netisr,Packet leaves out all other tests: quicker while one module is worked on.
func chosen(_ targets: [Target]) -> [Target] {
  guard let names = Context.environment["RINGWAY_TESTS"] else { return targets }
  let wanted = Set(names.split(separator: ",").map { "\($0)Tests" })
  return targets.filter { $0.type != .test || wanted.contains($0.name) }
}

let package = Package(
  name: "Ringway",
  products: [
    .library(name: "Ringway", targets: ["Ringway"]),
    .executable(name: "ringway", targets: ["ringway"]),
    .executable(name: "ringwayd", targets: ["ringwayd"]),
    .library(name: "ringway-netmap", type: .dynamic, targets: ["NetmapPreload"]),
    .library(name: "ringway-netmap-client", type: .dynamic, targets: ["NetmapClientExports"]),
    .executable(name: "ringway-model", targets: ["ringway-model"]),
  ],
  traits: [
    // libpci is GPL-licensed and has no static library in Debian: static builds leave it out
    // and print numeric ids.
    .trait(name: "PCINames", description: "Vendor and device names from libpci, linked by the command line alone."),
    .default(enabledTraits: ["PCINames"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/LebJe/TOMLKit", from: "0.6.0"),
  ],
  targets: chosen([
    // Floor 0: C. Volatile access, kernel structures, system libraries; no logic.
    .target(name: "CRingway", path: "Sources/CRingway"),
    .systemLibrary(name: "CPci", path: "Sources/CPci", pkgConfig: "libpci", providers: [.apt(["libpci-dev"])]),
    .systemLibrary(name: "CHugetlbfs", path: "Sources/CHugetlbfs", providers: [.apt(["libhugetlbfs-dev"])]),
    .target(name: "CPcap", path: "Sources/CPcap", linkerSettings: [.linkedLibrary("pcap")]),
    // Floor 1
    module("Platform", ["CRingway", system]),
    module("DeviceIO", ["CRingway"]),
    module("Wire", []),
    module("Control", []),
    module("NetmapAPI", []),
    // Floor 2
    module("PCI", ["CRingway", "Platform", "DeviceIO", system]),
    .target(
      name: "PCINames", dependencies: [.target(name: "CPci", condition: .when(traits: ["PCINames"]))],
      path: "Sources/PCINames", swiftSettings: settings),
    module("ControlClient", ["CRingway", "Platform", "Control", system]),
    module("NetmapClient", ["CRingway", "Platform", "NetmapAPI", system]),
    module("DMAMemory", ["CRingway", "CHugetlbfs", "Platform", "DeviceIO", system]),
    // Floor 3
    module("VFIO", ["CRingway", "Platform", "DeviceIO", "PCI", "DMAMemory", system]),
    module("VirtioTransport", ["CRingway", "Platform", "DeviceIO", "PCI", "DMAMemory"]),
    // Floor 4
    module("NetmapCore", ["CRingway", "Platform", "DeviceIO", "DMAMemory", "NetmapAPI", system]),
    module("Packet", ["CRingway", "DeviceIO", "DMAMemory"]),
    // Floor 5
    module(
      "DriverKit", ["CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet"],
      in: "Drivers"),
    module("Netisr", ["CRingway", "Platform", "DeviceIO", "DMAMemory", "Packet", system]),
    // Routes sit on workers, interfaces on both.
    module("Routes", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr"]),
    // Floor 6
    module("Ifnet", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr", "Routes"]),
    module("Ether", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr", "Ifnet"]),
    module(
      "NetmapPorts", ["CRingway", "Platform", "DeviceIO", "Wire", "DMAMemory", "NetmapAPI", "NetmapCore", "Packet", "Netisr"]),
    // Floor 7
    module("Inet", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr", "Routes", "Ifnet", "Ether"]),
    module("Inet6", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr", "Routes", "Ifnet", "Ether"]),
    module("Clones", ["CRingway", "Platform", "DeviceIO", "Wire", "Packet", "Netisr", "Routes", "Ifnet", "Ether", system]),
    module(
      "Attach",
      [
        "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapAPI", "NetmapCore", "NetmapPorts", "Packet", "DriverKit", "Netisr",
        "Ifnet",
      ]),
    module(
      "E1000e", ["CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit"],
      in: "Drivers"),
    module(
      "VirtioNet",
      [
        "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "VirtioTransport", "NetmapCore", "Packet",
        "DriverKit",
      ], in: "Drivers"),
    // Advanced descriptors: what the igb and ixgbe families share.
    module(
      "IntelRings",
      ["CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit"],
      in: "Drivers"),
    module(
      "Igb",
      [
        "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit",
        "IntelRings",
      ], in: "Drivers"),
    module(
      "Ixgbe",
      [
        "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit",
        "IntelRings",
      ], in: "Drivers"),
    // The device's side.
    module("ModelKit", ["CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", system], in: "Drivers"),
    module(
      "Models", ["CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "ModelKit", system], in: "Drivers"),
    module("ModelServer", ["CRingway", "Platform", "ModelKit", system], in: "Drivers"),
    // netmap for programs in other processes.
    module(
      "NetmapServer",
      [
        "CRingway", "Platform", "DeviceIO", "DMAMemory", "NetmapAPI", "NetmapCore", "NetmapPorts", "Netisr", "Packet", "Control", "ControlClient",
        system,
      ]),
    module("Capture", ["CPcap", "CRingway", "Platform", "Packet", system]),
    // Floor 8
    module(
      "Ringway",
      [
        "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "VFIO", "NetmapAPI", "NetmapCore", "NetmapPorts", "NetmapClient", "NetmapServer", "Packet", "DriverKit",
        "E1000e", "Igb", "Ixgbe", "VirtioNet", "Capture", "Control", "ControlClient", "Netisr", "Routes", "Ifnet", "Ether", "Inet", "Inet6",
        "Clones", "Attach", system, .product(name: "Logging", package: "swift-log"),
      ]),
    // Floor 9
    .executableTarget(
      name: "ringway",
      dependencies: [
        "Ringway", "PCINames", "PCI", "VFIO", "DMAMemory", "NetmapCore", "Packet", "Capture", "Platform", "Wire",
        "DriverKit", "Control", "ControlClient", "NetmapClient", arguments, system,
      ], path: "Sources/ringway", swiftSettings: settings),
    .executableTarget(
      name: "ringwayd",
      dependencies: [
        "Ringway", "Control", "ControlClient", "NetmapServer", "Netisr", "Ifnet", "Wire", "DriverKit", "Platform", "CRingway", arguments, system,
        .product(name: "Logging", package: "swift-log"),
        .product(name: "TOMLKit", package: "TOMLKit"),
      ], path: "Sources/ringwayd", swiftSettings: settings),
    // Preloaded into netmap's own programs. It brings its Swift runtime along and hides it: no test imports it, since it
    // would wrap the test runner's calls.
    .target(name: "CNetmapPreload", path: "Sources/CNetmapPreload"),
    .target(
      name: "NetmapPreload", dependencies: ["CNetmapPreload", "CRingway", "NetmapAPI", "NetmapClient"], path: "Sources/NetmapPreload",
      exclude: ["exports.map"], swiftSettings: settings,
      linkerSettings: [
        .unsafeFlags([
          "-static-stdlib", "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/NetmapPreload/exports.map", "-Xlinker", "-z", "-Xlinker", "nodelete",
        ])
      ]),
    // The same client for programs in C: header, and the functions behind it.
    .target(name: "NetmapClientC", path: "Sources/NetmapClientC"),
    .target(
      name: "NetmapClientExports", dependencies: ["NetmapClientC", "CRingway", "NetmapAPI", "NetmapClient"], path: "Sources/NetmapClientExports",
      exclude: ["exports.map"], swiftSettings: settings,
      linkerSettings: [
        .unsafeFlags([
          "-static-stdlib", "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/NetmapClientExports/exports.map",
        ])
      ]),
    .executableTarget(
      name: "ringway-model",
      dependencies: ["ModelKit", "Models", "ModelServer", "Platform", "Wire", arguments, system],
      path: "Sources/ringway-model", swiftSettings: settings),
    // Counts instructions a packet (tools/callgrind-check).
    .executableTarget(
      name: "forward-count",
      dependencies: [
        "CRingway", "DeviceIO", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit", "ModelKit", "Models", "E1000e",
        "IntelRings", "Igb", "Ixgbe", "VirtioNet", "NetmapAPI", "NetmapPorts", "Netisr", "Ifnet", "Attach",
      ], path: "Tests/Callgrind", swiftSettings: settings),
    // Measures the stack, and others beside it (tools/bench).
    .executableTarget(
      name: "ringway-bench",
      dependencies: [
        "CRingway", "Platform", "DeviceIO", "DMAMemory", "Wire", "Packet", "Netisr", "Routes", "Ifnet", "Ether", "Inet", "NetmapAPI",
        "NetmapCore", "NetmapPorts", "NetmapClient", "Attach", "PCI", "DriverKit", "ModelKit", "Models", "E1000e", "Ixgbe", "VirtioNet", arguments,
      ], path: "Tests/Bench", swiftSettings: settings),
    // Fuzzing: targets, a program that tools/fuzz builds with libFuzzer, and the corpus replayed as tests.
    .target(name: "CFuzz", path: "Tests/Fuzz/CFuzz"),
    .target(
      name: "FuzzTargets",
      dependencies: [
        "CFuzz", "CRingway", "Platform", "DeviceIO", "Wire", "PCI", "DMAMemory", "NetmapCore", "Packet", "DriverKit",
        "ModelKit", "Models", "ModelServer", "E1000e", "Ixgbe", "VirtioNet", "Netisr", "Routes", "Ifnet", "Ether", "Inet", "Inet6",
        "Control", "NetmapAPI", "NetmapPorts", "Attach",
      ], path: "Tests/Fuzz/Targets", swiftSettings: settings),
    .executableTarget(
      name: "ringway-fuzz", dependencies: ["FuzzTargets", "CFuzz"], path: "Tests/Fuzz/Program", swiftSettings: settings),
    .testTarget(
      name: "FuzzTests", dependencies: ["FuzzTargets"], path: "Tests/Fuzz/Tests", swiftSettings: settings),
    // Tests: a target for each module.
    tests("Platform", ["CRingway", system]),
    tests("DeviceIO"),
    tests("Wire"),
    tests("NetmapAPI"),
    tests("NetmapClient", ["CRingway", "NetmapAPI", "Platform"]),
    tests("PCI", ["CRingway", "Platform", system]),
    tests("DMAMemory", ["CRingway", "DeviceIO", "Platform", system]),
    tests("VFIO", ["PCI", "DMAMemory", "DeviceIO", "Platform", "CRingway", system]),
    // Module VFIO against a real kernel's, for the testbed's guests.
    .executableTarget(
      name: "vfio-probe", dependencies: ["VFIO", "PCI", "DMAMemory", "DeviceIO", "Platform", "CRingway"],
      path: "Tests/VFIOProbe", swiftSettings: settings),
    tests("VirtioTransport", ["CRingway", "Platform", "ModelKit", "Models", "DeviceIO", "PCI", "DMAMemory"]),
    tests("NetmapCore", ["CRingway", "DMAMemory", "DeviceIO", "NetmapAPI", "Platform", system]),
    tests("Packet", ["CRingway", "DMAMemory", "DeviceIO", "Platform"]),
    tests("DriverKit", ["Packet", "NetmapCore", "DMAMemory", "DeviceIO", "PCI"]),
    tests("E1000e", ["DriverKit", "ModelKit", "Models", "Packet", "NetmapCore", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform"]),
    tests("VirtioNet", ["VirtioTransport", "CRingway", "DriverKit", "ModelKit", "Models", "Packet", "NetmapCore", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform"]),
    tests(
      "IntelRings", ["CRingway", "DriverKit", "Packet", "NetmapCore", "DMAMemory", "DeviceIO", "Wire", "Platform"]),
    tests(
      "Igb", ["CRingway", "IntelRings", "DriverKit", "Packet", "NetmapCore", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform"]),
    tests(
      "Ixgbe",
      [
        "CRingway", "IntelRings", "DriverKit", "ModelKit", "Models", "Packet", "NetmapCore", "DMAMemory", "DeviceIO",
        "PCI", "Wire", "Platform",
      ]),
    tests("Netisr", ["CRingway", "Packet", "DMAMemory", "DeviceIO", "Platform"]),
    tests("Routes", ["Netisr", "Packet", "Wire", "DeviceIO", "Platform"]),
    tests("Ifnet", ["Netisr", "Routes", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform"]),
    tests("Ether", ["Ifnet", "Netisr", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform"]),
    tests("Inet", ["Ether", "Ifnet", "Routes", "Netisr", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform"]),
    tests("Inet6", ["Ether", "Ifnet", "Routes", "Netisr", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform"]),
    tests(
      "NetmapPorts",
      ["CRingway", "NetmapAPI", "NetmapCore", "Netisr", "DMAMemory", "Packet", "DeviceIO", "Platform"]),
    tests(
      "NetmapServer",
      [
        "CRingway", "NetmapAPI", "NetmapCore", "NetmapPorts", "Netisr", "Control", "DMAMemory", "Packet", "DeviceIO", "Platform",
      ]),
    tests("Clones", ["Ether", "Ifnet", "Routes", "Netisr", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform", "CRingway", system]),
    tests(
      "Attach",
      [
        "CRingway", "NetmapAPI", "NetmapPorts", "DriverKit", "E1000e", "Ixgbe", "VirtioNet", "ModelKit", "Models", "Ether", "Ifnet", "Netisr", "NetmapCore",
        "Packet", "DMAMemory", "PCI", "Wire", "DeviceIO", "Platform",
      ]),
    tests("Control"),
    tests("ControlClient", ["CRingway", "Control", "Platform"]),
    tests("ModelKit", ["CRingway", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform", system]),
    tests("Models", ["CRingway", "ModelKit", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform"]),
    tests("ModelServer", ["CRingway", "ModelKit", "Models", "VFIO", "DMAMemory", "DeviceIO", "PCI", "Wire", "Platform", system]),
    // The stack on real threads, everything at once.
    .testTarget(
      name: "StackTests",
      dependencies: ["Ether", "Ifnet", "Inet", "Inet6", "Routes", "Netisr", "Packet", "DMAMemory", "Wire", "DeviceIO", "Platform"],
      path: "Tests/Stack", swiftSettings: settings),
    // Every driver against every model, features and faults.
    .testTarget(
      name: "MatrixTests",
      dependencies: [
        "CRingway", "ModelKit", "Models", "DriverKit", "E1000e", "Ixgbe", "VirtioNet", "Packet", "NetmapCore", "DMAMemory",
        "DeviceIO", "PCI", "Wire", "Platform",
      ], path: "Tests/Matrix", swiftSettings: settings),
    tests("Capture", ["Packet", "DMAMemory", "Platform", system]),
    tests(
      "Ringway",
      [
        "Packet", "NetmapCore", "DriverKit", "PCI", "VFIO", "DMAMemory", "DeviceIO", "Wire", "Platform", "ModelKit", "Models",
        "ModelServer", "Control", "ControlClient", "Netisr", "Ifnet", "Routes", "CRingway", system,
      ]),
    .testTarget(
      name: "DaemonTests",
      dependencies: [
        "ringwayd", "Ringway", "Control", "ControlClient", "NetmapAPI", "NetmapServer", "Platform", "CRingway", .product(name: "Logging", package: "swift-log"),
      ], path: "Tests/Daemon", swiftSettings: settings),
    .testTarget(
      name: "CommandLineTests",
      dependencies: ["ringway", "Ringway", "Control", "Wire", .product(name: "ArgumentParser", package: "swift-argument-parser")],
      path: "Tests/CommandLine", swiftSettings: settings),
  ]),
  swiftLanguageModes: [.v6]
)
