// Package conformance runs the upstream suite as it is. Its specs, and its flags, are registered by importing it.
package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/ginkgo/v2"
	"github.com/onsi/ginkgo/v2/types"
	upstream "sigs.k8s.io/mcs-api/conformance"
)

func TestConformance(t *testing.T) { upstream.TestConformance(t) }

// One line for each spec: its state, its level, and what it says of itself.
var _ = ReportAfterSuite("counts", func(report Report) {
	var lines []string
	for _, spec := range report.SpecReports {
		if spec.LeafNodeType != types.NodeTypeIt {
			continue
		}
		level := "optional"
		if slices.Contains(spec.Labels(), upstream.RequiredLabel) {
			level = "required"
		}
		text := strings.Join(strings.Fields(spec.FullText()), " ")
		lines = append(lines, fmt.Sprintf("%s\t%s\t%s\n", spec.State, level, text))
	}
	slices.Sort(lines)
	if err := os.WriteFile("specs.txt", []byte(strings.Join(lines, "")), 0o644); err != nil {
		panic(err)
	}
})
