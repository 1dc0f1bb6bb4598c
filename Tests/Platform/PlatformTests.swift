// Descriptors, errors and small files.

import CRingway
import SystemPackage
import Testing

@testable import Platform

/// A directory of its own for one test, removed with it.
final class Scratch {
  let path: String

  init() throws {
    var template = Array("/tmp/platform-tests-XXXXXX".utf8CString)
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    try #require(made, "mkdtemp")
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    for name in (try? Files.list(path)) ?? [] { _ = unsafe unlink("\(path)/\(name)") }
    _ = unsafe rmdir(path)
  }
}

@Suite struct DescriptorTests {
  @Test func isClosedWithItsOwnerAndNotWhenGivenAway() throws {
    // The other end of a pipe tells whether the writing end is still open.
    var ends: [Int32] = [-1, -1]
    try #require(unsafe pipe(&ends) == 0)
    let reader = OwnedDescriptor(taking: ends[0])
    _ = rw_fcntl(reader.raw, F_SETFL, O_NONBLOCK)
    var byte: UInt8 = 0
    let kept = OwnedDescriptor(taking: ends[1]).release()
    #expect(unsafe read(reader.raw, &byte, 1) == -1)
    do { _ = OwnedDescriptor(taking: kept) }
    #expect(unsafe read(reader.raw, &byte, 1) == 0)
  }

  @Test func opensCloseOnExec() throws {
    let owned = try OwnedDescriptor(opening: "/dev/null", flags: O_RDONLY)
    #expect(rw_fcntl(owned.raw, F_GETFD, 0) & FD_CLOEXEC != 0)
  }

  @Test func duplicateOutlivesTheOriginal() throws {
    let event = try EventFD()
    event.signal()
    let second = try OwnedDescriptor(taking: rw_fcntl(event.descriptor, F_DUPFD_CLOEXEC, 0)).duplicate()
    #expect(second.raw != event.descriptor)
    #expect(EventFD.drain(second.raw) == 1)
  }

  @Test func errorSaysWhatAndWhere() {
    #expect {
      _ = try OwnedDescriptor(opening: "/nonexistent/file", flags: O_RDONLY)
    } throws: { error in
      "\(error)" == "open /nonexistent/file: No such file or directory"
    }
    #expect(SystemError("wait", "epoll", .badFileDescriptor).errno == Errno(rawValue: EBADF))
  }
}

@Suite struct EventFDTests {
  @Test func countsAndDrains() throws {
    let event = try EventFD()
    #expect(event.drain() == 0)
    event.signal()
    event.signal()
    #expect(event.drain() == 2)
    #expect(event.drain() == 0)
  }

  @Test func aFullCounterDoesNotBlock() throws {
    let event = try EventFD()
    var full = UInt64.max - 1
    #expect(unsafe write(event.descriptor, &full, 8) == 8)
    event.signal()
    #expect(event.drain() == UInt64.max - 1)
  }
}

@Suite struct FilesTests {
  @Test func writesReadsAndLists() throws {
    let scratch = try Scratch()
    let path = scratch.path + "/b"
    #expect(throws: SystemError("open", path, .noSuchFileOrDirectory)) { try Files.write("x", to: path) }
    try Files.write(" 82574L \n", to: path, create: true)
    try Files.write("", to: scratch.path + "/a", create: true)
    #expect(try Files.read(path) == " 82574L \n")
    #expect(try Files.line(path) == "82574L")
    #expect(try Files.line(scratch.path + "/a") == "")
    #expect(try Files.list(scratch.path) == ["a", "b"])
    #expect(Files.exists(path) && Files.isReadWritable(path) && !Files.exists(path + "c"))
  }

  @Test func readsFilesLongerThanOneChunk() throws {
    let scratch = try Scratch()
    let text = String(repeating: "0123456789", count: 2000)
    try Files.write(text, to: scratch.path + "/long", create: true)
    #expect(try Files.read(scratch.path + "/long") == text)
  }

  @Test func readsLinks() throws {
    let scratch = try Scratch()
    let link = scratch.path + "/driver"
    #expect(unsafe symlink("../../../bus/pci/drivers/e1000e", link) == 0)
    #expect(try Files.linkTarget(link) == "../../../bus/pci/drivers/e1000e")
    #expect(try Files.linkName(link) == "e1000e")
    #expect(throws: SystemError("read link", scratch.path, .invalidArgument)) { _ = try Files.linkTarget(scratch.path) }
  }

  @Test func refusesWhatIsNoDirectoryOrNoFile() {
    #expect(throws: SystemError("list", "/dev/null", .notDirectory)) { _ = try Files.list("/dev/null") }
    #expect(throws: SystemError("read", "/", .isDirectory)) { _ = try Files.read("/") }
  }
}
