// How netmap says no.

/// The errno that netmap returns for a request, and why.
public struct NetmapError: Error, Equatable, Sendable, CustomStringConvertible {
  /// errno's names; the raw value is Linux's number (errno(3)).
  public enum Code: Int32, Sendable, CaseIterable {
    case EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, ENXIO = 6, EAGAIN = 11, ENOMEM = 12, EACCES = 13, EFAULT = 14, EBUSY = 16
    case EEXIST = 17, ENODEV = 19, EINVAL = 22, ENOSPC = 28, EMSGSIZE = 90, EOPNOTSUPP = 95, ETIMEDOUT = 110
  }
  public var code: Code
  /// "ix0: ring 4 does not exist; it has 0 to 1."
  public var problem: String

  public init(_ code: Code, _ problem: String) {
    self.code = code
    self.problem = problem
  }
  public var description: String { "\(problem) (\(code))" }
}
