package consume_test

import (
	"testing"

	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }
