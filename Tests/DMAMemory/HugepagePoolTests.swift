import Testing

@testable import DMAMemory

@Suite struct HugepagePoolTests {
  @Test func `promised pages are not available`() throws {
    let root = try FakeRoot()
    try root.pools(nodes: [(total: 10, free: 8), (total: 6, free: 2)], reserved: 3)
    let all = try #require(HugepagePool.read(pageSize: 2 << 20, root: root.path))
    #expect(all.total == 16 && all.free == 10 && all.available == 7)
  }

  @Test func `a node answers for the promises that the others cannot keep`() throws {
    let root = try FakeRoot()
    try root.pools(nodes: [(total: 10, free: 8), (total: 6, free: 2)], reserved: 3)
    let first = try #require(HugepagePool.read(pageSize: 2 << 20, node: 0, root: root.path))
    // Node 1 can keep two of the three promises.
    #expect(first.available == 7)
    let second = try #require(HugepagePool.read(pageSize: 2 << 20, node: 1, root: root.path))
    #expect(second.available == 2)
    #expect(HugepagePool.nodes(root: root.path) == [0, 1])
  }

  @Test func `what does not exist is nil, and sizes come from the directory`() throws {
    let root = try FakeRoot()
    try root.pools(nodes: [(total: 1, free: 1)])
    try root.file("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0")
    try root.directory("/sys/kernel/mm/hugepages/nonsense")
    #expect(HugepagePool.pageSizes(root: root.path) == [2 << 20, 1 << 30])
    #expect(HugepagePool.read(pageSize: 2 << 20, node: 1, root: root.path) == nil)
    #expect(HugepagePool.read(pageSize: 64 << 10, root: root.path) == nil)
    #expect(HugepagePool.read(pageSize: 1 << 30, root: root.path) == nil, "free_hugepages is missing")
  }

  @Test func `lists of numbers, as the kernel writes them, and as it does not`() {
    #expect(HugepagePool.parseList("0-2,5\n") == [0, 1, 2, 5])
    #expect(HugepagePool.parseList("") == [])
    #expect(HugepagePool.parseList("3-1,x,-,7-,99999999999999999999,0-4096") == [])
  }
}
