// Run the AOTInductor package of an encoder or decoder without Python: run PACKAGE INPUT B C H W OUTPUT
//
// INPUT and OUTPUT are float32 as they lie in memory, NCHW; OUTPUT is the first output of the package.

#include <ATen/ATen.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <vector>

int main(int count, char** words) {
    if (count != 8) {
        std::cerr << "usage: run PACKAGE INPUT B C H W OUTPUT\n";
        return 2;
    }
    std::vector<int64_t> shape;
    for (int word = 3; word < 7; ++word) shape.push_back(std::atoll(words[word]));
    at::Tensor input = at::empty(shape, at::kFloat);  // [B, C, H, W]
    const auto bytes = static_cast<std::streamsize>(input.nbytes());
    if (!std::ifstream(words[2], std::ios::binary).read(static_cast<char*>(input.data_ptr()), bytes)) {
        std::cerr << "error: " << words[2] << " has fewer than " << bytes << " bytes\n";
        return 1;
    }
    torch::inductor::AOTIModelPackageLoader loader(words[1]);
    std::cout << loader.get_metadata()["litevae"] << "\n";
    const at::Tensor output = loader.run({input})[0].contiguous();
    std::ofstream(words[7], std::ios::binary)
        .write(static_cast<const char*>(output.data_ptr()), static_cast<std::streamsize>(output.nbytes()));
    return 0;
}
