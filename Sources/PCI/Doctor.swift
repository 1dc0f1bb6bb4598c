enum Doctor {
  static func allowsNoIOMMU(_ roots: SystemRoots) -> Bool {
    SystemFiles.text(roots.sys + "/module/vfio/parameters/enable_unsafe_noiommu_mode") == "Y"
  }
}
