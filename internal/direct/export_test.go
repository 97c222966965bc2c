package direct

// Stream copies as a Writer does.
var Stream = stream

// PieceSize is how much a Writer writes at once.
const PieceSize = pieceSize
