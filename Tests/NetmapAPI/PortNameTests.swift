import NetmapAPI
import Testing

@Suite("Names of ports")
struct PortNameTests {
  private func parse(_ text: String) throws -> PortSpecification { try NetmapPortName.parse(text) }

  @Test("Names, rings and flags")
  func forms() throws {
    for (text, name, mode, flags, id) in [
      ("netmap:ix0", "ix0", .allNIC, [], 0), ("netmap:ix0-1", "ix0", .oneNIC(1), [], 0), ("netmap:ix0-0", "ix0", .oneNIC(0), [], 0),
      ("netmap:ix0^", "ix0", .software, [], 0), ("netmap:ix0^3", "ix0", .oneSoftware(3), [], 0),
      ("netmap:ix0*", "ix0", .nicAndSoftware, [], 0), ("netmap:ix0-1/T", "ix0", .oneNIC(1), .transmitRingsOnly, 0),
      ("netmap:ix0/R", "ix0", .allNIC, .receiveRingsOnly, 0), ("netmap:ix0/x", "ix0", .allNIC, .exclusive, 0),
      ("netmap:ix0/t", "ix0", .allNIC, .monitorTransmit, 0), ("netmap:ix0/r", "ix0", .allNIC, .monitorReceive, 0),
      ("netmap:ix0/z", "ix0", .allNIC, .zeroCopyMonitor, 0),
      ("netmap:ix0*/xRzz", "ix0", .nicAndSoftware, [.exclusive, .receiveRingsOnly, .zeroCopyMonitor], 0),
      ("netmap:ix0@2", "ix0", .allNIC, [], 2), ("netmap:ix0-4094/x@65535", "ix0", .oneNIC(4094), .exclusive, 65535),
      ("netmap:ix0@3/tr", "ix0", .allNIC, [.monitorTransmit, .monitorReceive], 3), ("netmap:ix0^2@3/T", "ix0", .oneSoftware(2), .transmitRingsOnly, 3),
      ("netmap:ix0@3@3", "ix0", .allNIC, [], 3),
      ("netmap:p{1", "p{1", .allNIC, [], 0), ("netmap:p}1", "p}1", .allNIC, [], 0), ("netmap:ix0{abc_9/x", "ix0{abc_9", .allNIC, .exclusive, 0),
      ("vale0:a", "vale0:a", .allNIC, [], 0), ("vale0:a/r", "vale0:a", .allNIC, .monitorReceive, 0), ("vale:x", "vale:x", .allNIC, [], 0),
      ("vale_2:eth0^", "vale_2:eth0", .software, [], 0), ("vale1:a{1", "vale1:a{1", .allNIC, [], 0), ("netmap:vale0:b-1", "vale0:b", .oneNIC(1), [], 0),
      ("netmap:eth0.100", "eth0.100", .allNIC, [], 0), ("netmap:vale7", "vale7", .allNIC, [], 0),
    ] as [(String, String, RegisterMode, RegisterFlags, UInt16)] {
      let port = try parse(text)
      #expect(port.name == name, "\(text)")
      #expect(try port.register.registerMode() == mode, "\(text)")
      #expect(port.register.registerFlags == flags && port.register.memoryID == id, "\(text)")
      #expect(port.external == nil && port.share == nil && port.offsets == nil)
      let again = try parse(port.description)
      #expect(again == port, "\(text) is written as \(port.description)")
      var request = port.request
      #expect(code { try request.admit() } == nil && request.name == name)
    }
    #expect(try parse("netmap:ix0-1/Rx@4").description == "netmap:ix0-1/xR@4")
    #expect(try parse("netmap:vale0:b").description == "vale0:b")
    #expect(try parse("vale0:b").isSwitchPort && !parse("netmap:vale0").isSwitchPort)
  }

  @Test("Options: sizes, shared memory, memory files, offsets")
  func options() throws {
    var port = try parse("netmap:ix0@conf:rings=2,tx-rings=4,slots=512,rx_slots=1024,host-rings=3,host_rx_rings=1")
    #expect(port.register.transmitRings == 4 && port.register.receiveRings == 2 && port.register.transmitSlots == 512 && port.register.receiveSlots == 1024)
    #expect(port.register.hostTransmitRings == 3 && port.register.hostReceiveRings == 1)
    #expect(port.description == "netmap:ix0@conf:tx-rings=4,rx-rings=2,host-tx-rings=3,host-rx-rings=1,tx-slots=512,rx-slots=1024")
    #expect(try parse(port.description) == port)
    #expect(try parse("netmap:ix0@conf:tx-rings=4,rings=2") == parse("netmap:ix0@conf:rings=2,tx-rings=4"), "in any order")
    #expect(try parse("netmap:ix0@conf=8").register.receiveRings == 8)

    for text in ["netmap:ix0@share=netmap:ix1", "netmap:ix0@share:port=netmap:ix1", "netmap:ix0@netmap:ix1"] {
      port = try parse(text)
      #expect(port.share == "ix1" && port.description == "netmap:ix0@share=netmap:ix1")
    }
    #expect(try parse("netmap:p{1@share=vale0:a@conf=1").share == "vale0:a")

    for text in ["netmap:ix0@extmem=/dev/shm/x,y", "netmap:ix0@/dev/shm/x,y"] {
      #expect(try parse(text).external == .init(path: "/dev/shm/x,y"))
    }
    #expect(try parse("netmap:ix0/x@3@./x").external?.path == "./x")
    port = try parse("vale0:a/x@5@extmem:file=/m,if-num=1,if_size=2,ring-num=3,ring-size=4,buf-num=5,buf-size=6@conf:slots=7")
    var pools = PoolsInfo()
    pools.interfaces = .init(objects: 1, objectSize: 2)
    pools.rings = .init(objects: 3, objectSize: 4)
    pools.buffers = .init(objects: 5, objectSize: 6)
    #expect(port.external == .init(path: "/m", pools: pools) && port.register.memoryID == 5 && port.register.transmitSlots == 7)
    #expect(try parse(port.description) == port)

    #expect(try parse("netmap:ix0@offset=14").offsets == OffsetsOption(largest: 14, initial: 14))
    port = try parse("netmap:ix0@offset:bits=16,initial=128")
    #expect(port.offsets == OffsetsOption(largest: 128, initial: 128, bits: 16))
    #expect(try parse(port.description) == port && port.request.options.count == 1)
  }

  @Test("What cannot be is refused, and the sentence points at it")
  func errors() {
    for (text, place, needle) in [
      ("", "at its end", "starts with `netmap:`"), ("ix0", "character 1 (`i`)", "`netmap:ix0`"), ("netmap", "character 1", "starts with"),
      ("netmap:", "at its end", "name is missing"), ("netmap:/x", "character 8 (`/`)", "name is missing"), ("netmap:i x", "character 9 (` `)", "no spaces"),
      ("netmap:é", "character 8 (`é`)", "ASCII"), ("netmap:ix0-", "at its end", "is a number"), ("netmap:ix0-x", "character 12 (`x`)", "is a number"),
      ("netmap:ix0-4095", "character 12 (`4`)", "0 to 4094"), ("netmap:ix0-99999999999999999999999999", "character 12 (`9`)", "0 to 4094"),
      ("netmap:ix0-1x", "character 13 (`x`)", "`/`"), ("netmap:ix0^-", "character 12 (`-`)", "`/`"), ("netmap:ix0*1", "character 12 (`1`)", "`/`"),
      ("netmap:ix0/", "at its end", "flag is missing"), ("netmap:ix0/@3", "character 12 (`@`)", "flag is missing"),
      ("netmap:ix0/xq", "character 13 (`q`)", "flags are"), ("netmap:ix0@", "at its end", "options are"), ("netmap:ix0@0", "character 12 (`0`)", "1 to 65535"),
      ("netmap:ix0@65536", "character 12 (`6`)", "1 to 65535"), ("netmap:ix0@2@3", "character 14 (`3`)", "2 was asked for"),
      ("netmap:ix0@bad=1", "character 12 (`b`)", "options are"), ("netmap:ix0@conf", "at its end", "needs `=`"),
      ("netmap:ix0@conf:bad=1", "character 17 (`b`)", "keys of `conf`"), ("netmap:ix0@conf:rings", "at its end", "needs `=`"),
      ("netmap:ix0@conf:rings=", "at its end", "is a number"), ("netmap:ix0@conf:rings=65536", "character 23 (`6`)", "0 to 65535"),
      ("netmap:ix0@conf:rings=2x", "character 24 (`x`)", "is a number"), ("netmap:ix0@conf:rings=1,rings=2", "character 25 (`r`)", "given already"),
      ("netmap:ix0@conf:rings=1,", "at its end", "keys of"), ("netmap:ix0@share", "at its end", "needs a port"),
      ("netmap:ix0@share=", "at its end", "starts with"), ("netmap:ix0@share=netmap:a@share=netmap:b", "character 27 (`s`)", "already"),
      ("netmap:ix0@share=netmap:a/x", "character 26 (`/`)", "another `@`"), ("netmap:ix0@extmem=", "character 12 (`e`)", "name is missing"),
      ("netmap:ix0@extmem:if-num=1", "character 12 (`e`)", "name is missing"), ("netmap:ix0@/a@/b", "character 15 (`/`)", "already"),
      ("netmap:ix0@extmem:file=/a,buf-num=4294967296", "character 35 (`4`)", "0 to 4294967295"),
      ("netmap:ix0@offset:bits=3", "character 12 (`o`)", "needs `initial`"), ("netmap:ix0@offset:initial=1,bits=65", "character 34 (`6`)", "0 to 64"),
      ("netmap:ix0@offset=1@offset=1", "character 21 (`o`)", "already"),
      ("netmap:p{", "at its end", "identifier is missing"), ("netmap:{1", "character 8 (`{`)", "belongs to"), ("netmap:p{/x", "character 10 (`/`)", "identifier is missing"),
      ("netmap:p{1}2", "character 11 (`}`)", "identifier has"), ("netmap:p{a.b", "character 11 (`.`)", "identifier has"),
      ("vale0", "at its end", "`:` is missing"), ("vale-1:a", "character 5 (`-`)", "switch's name"), ("vale0:", "at its end", "name is missing"),
      ("netmap:" + String(repeating: "n", count: 64), "character 71 (`n`)", "at most 63"),
    ] as [(String, String, String)] {
      do throws(NetmapError) {
        let port = try NetmapPortName.parse(text)
        Issue.record("`\(text)` was read as \(port)")
      } catch {
        #expect(error.code == .EINVAL)
        #expect(error.problem.contains("`\(text)`, \(place)"), "\(error.problem)")
        #expect(error.problem.contains(needle), "\(error.problem)")
      }
    }
    #expect(code { _ = try parse("netmap:" + String(repeating: "n", count: 63)) } == nil)
  }

  @Test("Any text is refused, or written again as it is read")
  func mutations() throws {
    var random = TestRandom(seed: 6)
    let samples = [
      "netmap:ix0-1/xRT@3", "vale0:a{1^2@conf:rings=2,tx-slots=512@share=netmap:ix1", "netmap:p}1*@extmem:file=/x,if-num=1@offset:initial=2,bits=8",
      "netmap:a@/f@netmap:b@7/z",
    ].map { Array($0.utf8) }
    var read = 0
    for _ in 0..<30_000 {
      var bytes = random.below(3) == 0 ? random.mutate(samples[random.below(4)]) : samples[random.below(4)]
      for _ in 0..<random.below(3) where !bytes.isEmpty { bytes[random.below(bytes.count)] = Array("-*^/@:=,{}0129x".utf8)[random.below(15)] }
      if random.below(4) == 0 { bytes = Array(bytes.prefix(random.below(bytes.count + 1))) }
      let text = String(decoding: bytes, as: UTF8.self)
      do throws(NetmapError) {
        let port = try NetmapPortName.parse(text)
        read += 1
        let again = try NetmapPortName.parse(port.description)
        #expect(again == port, "`\(text)` is written as `\(port.description)`")
      } catch { #expect(error.code == .EINVAL && !error.problem.isEmpty, "\(text)") }
    }
    #expect(read > 1000 && read < 29_000)
  }
}
