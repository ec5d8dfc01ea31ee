import CXML
import Glibc
package import Platform

/// What libvirt describes its objects with: an element of an XML document, and what is in it.
///
/// A document comes from another program, and parts of it from whoever may edit a domain: no entities, no
/// document type, nothing loaded, ``depthLimit`` levels and ``sizeLimit`` bytes at most.
package struct XMLElement: Sendable, Equatable {
  package static let depthLimit = 64
  package static let sizeLimit = 8 << 20

  package let name: String
  package let attributes: [String: String]
  package let children: [XMLElement]
  /// The text directly in it.
  package let text: String

  /// The attribute of that name.
  package subscript(name: String) -> String? { attributes[name] }

  /// The first child of that name.
  package func child(_ name: String) -> XMLElement? { children.first { $0.name == name } }

  package func all(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }
}

extension XMLElement {
  /// - Throws: `damaged` when it is no XML within the limits.
  package init(parsing document: String) throws(StrobeError) {
    let bytes = Array(document.utf8)
    guard bytes.count <= Self.sizeLimit else {
      throw .damaged("libvirt's XML", expected: "at most \(Self.sizeLimit) bytes", found: "more")
    }
    // Also the bytes of a comment: libvirt writes no such.
    guard !Self.hasType(bytes) else {
      throw .damaged("libvirt's XML", expected: "no document type", found: "one")
    }
    Self.prepare
    let options =
      XML_PARSE_NONET.rawValue | XML_PARSE_NOERROR.rawValue | XML_PARSE_NOWARNING.rawValue
      | XML_PARSE_NOCDATA.rawValue
    let parsed = unsafe bytes.withUnsafeBytes {
      unsafe xmlReadMemory(
        $0.bindMemory(to: CChar.self).baseAddress, Int32($0.count), nil, "UTF-8", Int32(options))
    }
    guard let parsed = unsafe parsed else {
      throw .damaged("libvirt's XML", expected: "a document", found: "something else")
    }
    defer { unsafe xmlFreeDoc(parsed) }
    guard let root = unsafe xmlDocGetRootElement(parsed) else {
      throw .damaged("libvirt's XML", expected: "an element", found: "none")
    }
    self = try unsafe XMLElement(root, depth: 0)
  }

  /// By bytes: a character that joins the one before it would hide the word.
  private static func hasType(_ bytes: [UInt8]) -> Bool {
    let word = Array("<!DOCTYPE".utf8)
    return bytes.indices.contains {
      bytes[$0] == word[0] && bytes[$0...].prefix(word.count).elementsEqual(word)
    }
  }

  /// Once, before the first thread parses. See https://gnome.pages.gitlab.gnome.org/libxml2/html/threads.html.
  private static let prepare: Void = xmlInitParser()

  private init(_ node: xmlNodePtr, depth: Int) throws(StrobeError) {
    guard depth < Self.depthLimit else {
      throw .damaged(
        "libvirt's XML", expected: "at most \(Self.depthLimit) levels", found: "more")
    }
    var attributes: [String: String] = [:]
    var property = unsafe node.pointee.properties
    while let current = unsafe property {
      attributes[unsafe Self.string(current.pointee.name)] = unsafe Self.content(
        UnsafeMutableRawPointer(current).assumingMemoryBound(to: xmlNode.self))
      unsafe property = current.pointee.next
    }
    var children: [XMLElement] = []
    var text = ""
    var next = unsafe node.pointee.children
    while let current = unsafe next {
      if unsafe current.pointee.type == XML_ELEMENT_NODE {
        children.append(try unsafe XMLElement(current, depth: depth + 1))
      } else if unsafe current.pointee.type == XML_TEXT_NODE {
        text += unsafe Self.content(current)
      }
      unsafe next = current.pointee.next
    }
    self.init(
      name: unsafe Self.string(node.pointee.name), attributes: attributes, children: children,
      text: text)
  }

  private static func string(_ text: UnsafePointer<xmlChar>?) -> String {
    guard let text = unsafe text else { return "" }
    return unsafe String(decodingCString: text, as: UTF8.self)
  }

  private static func content(_ node: xmlNodePtr) -> String {
    guard let text = unsafe xmlNodeGetContent(node) else { return "" }
    defer { unsafe cxml_free(text) }
    return unsafe string(text)
  }
}
