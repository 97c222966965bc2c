package gateway

import (
	"fmt"
	"strings"

	"ferry/proto"
)

// naming makes names of what requests give, as the destination takes them.
type naming struct {
	parse   func(given string) (proto.FileName, error) // the destination's
	folders bool                                       // names may have folders
}

// namingFor has parse, a destination's, make names, and finds out from it whether
// they may have folders.
func namingFor(parse func(string) (proto.FileName, error)) naming {
	_, err := parse("a/b")
	return naming{parse: parse, folders: err == nil}
}

// stored is a name that a request gives a file at the destination. Errors are
// refusals, and proto.ErrName.
func (n naming) stored(given string) (proto.FileName, error) {
	name, err := n.parse(given)
	if err != nil {
		return proto.FileName{}, n.refuse(err)
	}
	return name, nil
}

func (n naming) refuse(err error) error {
	why := strings.TrimPrefix(err.Error(), "file "+proto.ErrName.Error()+": ")
	f := refusal(kindName, "The name cannot be stored: %s. Nothing of this request was kept. Send the file under %s.", why, n.allowed())
	f.err = err
	return f
}

// file is what a file is called where it comes from. Where it lay there means
// nothing at the destination: folders are wanted only from whoever says so.
func (n naming) file(given string) (proto.FileName, error) {
	if strings.Contains(given, "/") {
		how := ""
		if n.folders {
			how = ", unless they are asked for with ?name= or the field name"
		}
		return proto.FileName{}, n.refuse(fmt.Errorf("file %w: it contains a slash, and a filename has no folders%s", proto.ErrName, how))
	}
	return n.stored(given)
}

// allowed says which names the destination takes.
func (n naming) allowed() string {
	if n.folders {
		return fmt.Sprintf("a name of 1 to %s bytes of UTF-8, with / between folders; each part has 1 to %d bytes, is not . or .., "+
			"and has no back-slashes and control characters", grouped(proto.MaxFileName), proto.MaxClientName)
	}
	return fmt.Sprintf("a name of 1 to %d bytes of UTF-8 without slashes, back-slashes and control characters", proto.MaxClientName)
}
