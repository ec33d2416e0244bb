package consume

import "slices"

// tags are the delivery tags of a channel that have not been settled, in the order of delivery. There are never more of
// them than the prefetch.
type tags []uint64

// add notes a tag that was just delivered; the broker counts them up.
func (t *tags) add(tag uint64) { *t = append(*t, tag) }

// settle takes tags out. It tells up to which of them one acknowledgement does for all, or 0, and which need their own.
//
// Invariant: nothing that is still open was delivered before upTo, and upTo itself was open: the broker takes an
// acknowledgement up to a tag for everything before it, and closes the channel over a tag that it does not wait for.
func (t *tags) settle(settled []uint64) (upTo uint64, singly []uint64) {
	for _, tag := range settled {
		if at, found := slices.BinarySearch(*t, tag); found {
			*t = slices.Delete(*t, at, at+1)
		}
	}
	for _, tag := range settled {
		switch {
		case len(*t) > 0 && tag > (*t)[0]:
			singly = append(singly, tag)
		case tag > upTo:
			upTo = tag
		}
	}
	return upTo, singly
}
