"""Which scenarios belong together, and what their trees and steps are."""
