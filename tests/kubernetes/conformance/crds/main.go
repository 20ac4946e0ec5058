// The custom resources of the Multi-Cluster Services API, as its module has them, for kubectl apply.
package main

import (
	"fmt"

	"sigs.k8s.io/mcs-api/config/crd"
)

func main() {
	fmt.Printf("%s\n---\n%s", crd.ServiceExportCRD, crd.ServiceImportCRD)
}
